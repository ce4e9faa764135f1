"""The table of classic models: which kind is run by what; light to import."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from tlkit.engines.engine import Engine, EngineKind, HowToRun, Loadable
from tlkit.errors import LoadError, contradictions
from tlkit.words import one

_ROOM = "tlkit.engines.classic."
RUN_BY = {
    "treeEnsembleRegressor": "trees.regressor",
    "treeEnsembleClassifier": "trees.classifier",
    "glmRegressor": "linear.regressor",
    "glmClassifier": "linear.classifier",
    "supportVectorRegressor": "kernels.regressor",
    "supportVectorClassifier": "kernels.classifier",
    "kNearestNeighborsClassifier": "neighbours.classifier",
    "bayesianProbitRegressor": "ranked.probit",
    "itemSimilarityRecommender": "ranked.recommender",
    "oneHotEncoder": "encoders.one_hot",
    "dictVectorizer": "encoders.dict_vectorizer",
    "featureVectorizer": "encoders.feature_vectorizer",
    "categoricalMapping": "encoders.categorical_mapping",
    "imputer": "numbers.imputer",
    "scaler": "numbers.scaler",
    "normalizer": "numbers.normalizer",
    "arrayFeatureExtractor": "numbers.array_feature_extractor",
    "identity": "numbers.passed_on",
    "classConfidenceThresholding": "numbers.passed_on",
    "nonMaximumSuppression": "nms.suppression",
    "textClassifier": "text.classifier",
    "soundAnalysisPreprocessing": "sound.preprocessing",
}
"""The function that makes each kind of model runnable: (Model message, outputs by name) to rows."""

_APPLES = "only Apple's systems contain"
NOT_RUN = {
    "visionFeaturePrint": f"a network that {_APPLES}",
    "audioFeaturePrint": f"a network that {_APPLES}",
    "wordTagger": f"its features are found by a hash that {_APPLES}",
    "gazetteer": f"data in a form that {_APPLES} the reader of",
    "wordEmbedding": f"data in a form that {_APPLES} the reader of",
    "customModel": "code that only its app contains",
    "serializedModel": f"data in a form that {_APPLES} the reader of",
}
"""Why the other kinds cannot be run."""
_WHOLE = "see what is in it with `tlkit inspect`"


def refuse_unrun(stages: Sequence[Any]) -> None:
    """Raise LoadError for a pipeline with stages (``Model`` messages) that cannot be run here, and say how to run those
    after them."""
    unrun = {number: stage.WhichOneof("Type") for number, stage in enumerate(stages)}
    unrun = {number: kind for number, kind in unrun.items() if kind in NOT_RUN}
    if not unrun:
        return
    kind, first = next(iter(unrun.values())), max(unrun) + 1
    hint = _WHOLE
    if first < len(stages):
        made = {port.name for stage in stages[first:] for port in stage.description.output}
        asked = {port.name: None for stage in stages[first:] for port in stage.description.input}
        given = " ".join(f"--input {name}=FILE" for name in asked if name not in made)
        hint = f"the rest runs on features that you give: --from {first} {given}"
    raise LoadError(f"{one(kind)} cannot be run here: {NOT_RUN[kind]}", hint)


class ClassicKind(EngineKind):
    """Trees, linear models, neighbours, feature engineering and the like, in numpy, on any machine."""

    name = "classic"

    def available(self, *, stand_in: bool = False) -> bool:
        """Whether it is here: always."""
        return True

    def runs(self, kind: str) -> bool:
        """Whether it answers for models of ``kind``; those of :data:`NOT_RUN` it refuses by name."""
        return kind in RUN_BY or kind in NOT_RUN

    def load(self, model: Loadable, settings: HowToRun) -> Engine:
        """Read the model's part of the protobuf; LoadError for what contradicts itself, or cannot be run here."""
        from tlkit.engines.classic.engine import ALSO, ClassicEngine
        from tlkit.engines.classic.values import DAMAGED

        kind = model.message.WhichOneof("Type")
        if kind in NOT_RUN:
            raise LoadError(f"{one(kind)} cannot be run here: {NOT_RUN[kind]}", _WHOLE)
        module, _, function = RUN_BY[kind].partition(".")
        make = getattr(import_module(_ROOM + module), function)
        with contradictions("the model contradicts itself", DAMAGED, also=ALSO):
            return ClassicEngine(make(model.message, {spec.name: spec for spec in model.outputs}))
