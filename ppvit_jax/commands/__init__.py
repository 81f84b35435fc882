"""The commands of `ppvit`, one file each: `add_arguments(parser)` and `run(arguments)`.

A module is imported only when its command runs, so that the cloud's commands never load the module of keys.
"""

# The commands in the order of the paper's Figure 2, each with a line for `ppvit --help`.
COMMANDS = {
    "keygen": "Make a secret key (owner)",
    "encrypt": "Encrypt images (owner)",
    "adapt": "Adapt a plain model to encrypted images (owner)",
    "train": "Fine-tune a model on plain or encrypted images (cloud)",
    "predict": "Predict the classes of plain or encrypted images (cloud)",
    "evaluate": "Measure a model on labeled plain or encrypted images (cloud)",
    "merge": "Make a whole model of a base and a delta (cloud or owner)",
    "restore": "Turn an adapted model back into a plain one (owner)",
    "rekey": "Move an adapted model to another key (owner)",
    "decrypt": "Decrypt images (owner)",
    "info": "Describe a checkpoint, key, folder of images or run",
    "report": "Write a page about a complete run",
    "prepare": "Prepare a public data set for training",
    "export": "Export a model as a program, in StableHLO or ONNX",
    "convert": "Convert checkpoints to and from timm and other libraries",
    "reproduce": "Reproduce a table or figure of the paper, or beyond it",
    "audit": "Attack encrypted images and adapted models",
    "benchmark": "Measure the speed and memory of training",
    "scaling": "Calculate memory and traffic of training on many devices",
}
