"""Exact rewrites for the Neural Engine: other operations that compute the same.

Whether one helps is not known here: ``core/edit/ane.py`` makes those that improve the prediction.
"""
