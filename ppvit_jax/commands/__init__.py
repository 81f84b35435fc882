"""The commands of `ppvit`, one file each: `add_arguments(parser)` and `run(arguments)`.

A module is imported only when its command runs, so that the cloud's commands never load the module of keys.
"""

# In the order of the story: a description, and "(owner)" or "(cloud)" after it where the paper's Figure 2 says who runs
# the command.
COMMANDS = {
    "keygen": "Make a secret key (owner)",
    "encrypt": "Encrypt images (owner)",
    "adapt": "Adapt a plain model to encrypted images (owner)",
    "train": "Fine-tune a model on plain or encrypted images (cloud)",
    "predict": "Predict the classes of plain or encrypted images (cloud)",
    "restore": "Turn an adapted model back into a plain one (owner)",
    "rekey": "Move an adapted model to another key (owner)",
    "decrypt": "Decrypt images (owner)",
    "info": "Describe a checkpoint, key, folder of images or run",
    "prepare": "Download a public data set and prepare it for training",
    "convert": "Convert checkpoints to and from timm and other libraries",
    "reproduce": "Reproduce a table or figure of the paper, or beyond it",
    "audit": "Attack encrypted images and adapted models",
    "benchmark": "Measure the speed and memory of training",
    "scaling": "Calculate memory and traffic of training on many devices",
}


def describe(name: str) -> str:
    """Returns the description of a command as a sentence, for its own help."""
    return f"{COMMANDS[name].partition(' (')[0]}."
