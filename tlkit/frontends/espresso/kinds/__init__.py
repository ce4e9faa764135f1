"""The kinds of Espresso layers, a function each; importing this registers them."""

from tlkit.frontends.espresso.kinds import arrangement, dense, elementwise, images

FAMILIES = (arrangement, dense, elementwise, images)
