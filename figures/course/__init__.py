"""The drawings of the notebooks that are not figures of the paper: a module a notebook, and what they share.

A notebook computes what is drawn, calls a function of its module, and checks the figure that it returns.
"""
