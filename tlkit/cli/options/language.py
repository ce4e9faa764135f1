"""The options of language models, each defined once."""

from __future__ import annotations

from typing import Annotated

import typer

Prompt = Annotated[
    str | None, typer.Option("--prompt", metavar="TEXT", help="Of a language model: generate what follows this text.")
]
PromptFile = Annotated[
    str | None, typer.Option("--prompt-file", metavar="FILE", help="The same of a file's text (UTF-8); - is stdin.")
]
Chat = Annotated[
    bool,
    typer.Option("--chat", help="Answer as the model's chat template has it; without --prompt, lines of stdin."),
]
System = Annotated[str | None, typer.Option("--system", metavar="TEXT", help="What --chat tells the model first.")]
Perplexity = Annotated[
    str | None,
    typer.Option("--perplexity", metavar="FILE", help="Print how well a model predicts a file's text (-: stdin)."),
]
Embed = Annotated[bool, typer.Option("--embed", help="Print an encoder's vector of the --prompt.")]
Context = Annotated[
    int | None,
    typer.Option(
        "--context",
        metavar="N",
        help="Tokens that prompt and answer may have [4096], or a window of --perplexity [512].",
    ),
]
MaxTokens = Annotated[int, typer.Option("--max-tokens", metavar="N", help="Generate at most N tokens.")]
Temperature = Annotated[
    float, typer.Option("--temperature", metavar="T", help="0 takes the likeliest token; else draw at T (--seed).")
]
TopK = Annotated[int, typer.Option("--top-k", metavar="K", help="Draw from the K likeliest tokens only. [0: all]")]
TopP = Annotated[
    float, typer.Option("--top-p", metavar="P", help="Draw from the fewest likeliest tokens that have P in sum.")
]
MinP = Annotated[
    float, typer.Option("--min-p", metavar="P", help="Draw from tokens at least P times as likely as the likeliest.")
]
RepeatPenalty = Annotated[
    float,
    typer.Option(
        "--repeat-penalty", metavar="R", help="Divide the logits of the last 64 tokens by R (multiply negative ones)."
    ),
]
Stop = Annotated[
    list[str] | None, typer.Option("--stop", metavar="TEXT", help="End before this text. Repeat it for several.")
]
