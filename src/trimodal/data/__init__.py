"""Manifests and the corpora that are built from nothing; importing it loads nothing heavy."""

from trimodal.data.manifest import read_manifest, read_manifests
from trimodal.data.row import Row

__all__ = ["Row", "read_manifest", "read_manifests"]
