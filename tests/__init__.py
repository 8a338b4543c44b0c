"""Tests; a package, because mmsegmentation installs one of the same name, which would be found instead."""
