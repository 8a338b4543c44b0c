"""From YAML to objects: `recipe` reads a file and builds what it describes, the others say what is wrong in it."""
