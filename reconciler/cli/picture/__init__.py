"""The orchestration as a picture: a graph in layers, drawn as text, SVG or Mermaid.

``graph`` puts nodes into layers and folds what is too much to look at, ``layout`` gives each node
a place and each edge a way, and ``draw``, ``svg`` and ``mermaid`` turn that into something to see.
All of it is pure.
"""
