"""From found to used: the architecture that a run found, trained in full, loaded again, and exported.

How data walks: `choice` takes the architecture and the training out of a run, and `shared_start` what a supernet has
learned of it; `training` trains it and leaves a folder, by default ``RUN/trained/TARGET``, which `network_folder` reads
again; `export` writes what is in it for other programs, `hub` for the Hugging Face Hub.
"""

from search.deploy.network_folder import load_network

__all__ = ["load_network"]
