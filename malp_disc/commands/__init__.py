"""The commands that work with a trained MaLP on files: protect, localize, detect, export. No module here imports anything heavy at its top."""
