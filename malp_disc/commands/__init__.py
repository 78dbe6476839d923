"""The commands of ``malp-disc``. Modules that define a command import torch only when it runs, so that --help is fast."""
