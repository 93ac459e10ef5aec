"""Code that runs inside the target: this folder is put first on its PYTHONPATH.

Nothing here imports giltrace, and `sitecustomize.py` is valid in every Python that could meet it.
"""
