"""From found to used: the architecture that a run found, trained in full, loaded again, and exported.

How data walks: `choice` takes the architecture and the training out of a run; `training` trains it and leaves a folder,
by default ``RUN/trained/TARGET``, which `network_folder` reads again; `export` writes what is in it for other programs.
"""

from search.deploy.network_folder import load_network

__all__ = ["load_network"]
