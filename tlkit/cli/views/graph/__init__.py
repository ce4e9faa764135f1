"""The graph of a model as a page: what is drawn, and the page that draws it."""
