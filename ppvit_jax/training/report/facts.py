"""Facts about a run: its settings, its environment, and the way to repeat it."""

import json
from typing import Any

from ppvit_jax.config import default_config
from ppvit_jax.training.public_settings import public_settings
from ppvit_jax.training.report.markup import Html, details, element, section, table
from ppvit_jax.training.report.run_files import RunFiles

_MEMORY_OF = {"device": "of the fullest device", "process": "of the process, on the CPU"}


def draw_settings(run: RunFiles) -> Html:
    """Returns the section of settings: first those that differ from the defaults."""
    settings, defaults = public_settings(run.record["config"]), _defaults()
    changed = {name: value for name, value in settings.items() if value != defaults.get(name)}
    rows = [[name, _code(value), _code(defaults.get(name))] for name, value in changed.items()]
    same = [[name, _code(value)] for name, value in settings.items() if name not in changed]
    caption = "Settings that differ from the defaults"
    return section(
        "Settings",
        table(caption, ["config.", "Value", "Default"], rows) if rows else element("p", "All are defaults."),
        details(f"{len(same)} settings at their defaults", table("Other settings", ["config.", "Value"], same)),
        id_="settings",
    )


def draw_environment(run: RunFiles) -> Html:
    """Returns the section of images, device, versions, time and memory."""
    result, dataset = run.result, run.record.get("dataset", {})
    rows: list[list[object]] = [["Device", result["device"]]]
    if "seconds" in result:
        rows.append(["Time of training and evaluation", duration(result["seconds"])])
    if "peak_memory_bytes" in result:
        place = _MEMORY_OF.get(result.get("peak_memory_of", ""), "")
        rows.append(["Peak memory", f"{memory(result['peak_memory_bytes'])} {place}"])
    rows += [
        ["Training images", f"{result['train_examples']:,}"],
        ["Test images", f"{result['test_examples']:,}"],
        ["Classes", f"{len(dataset.get('class_names', ())):,}"],
        ["Encryption of the images", result["encryption"]],
        ["Key fingerprint", result["key_fingerprint"] or "none"],
        ["SHA-256 of the images", _code(dataset.get("digest") or "not recorded")],
        ["SHA-256 of the checkpoint", _code(run.record.get("checkpoint_sha256") or "not recorded")],
    ]
    versions = [[name, version] for name, version in result["versions"].items()]
    return section(
        "Environment",
        table("Images, device, time and memory", ["Fact", "Value"], rows),
        table("Versions", ["Library", "Version"], versions),
        id_="environment",
    )


def draw_repetition(run: RunFiles) -> Html:
    """Returns the section on how to repeat the run."""
    versions = run.result["versions"]
    installed = " ".join(f"{name.replace('_', '-')}=={text}" for name, text in versions.items() if name != "python")
    steps: list[object] = [
        element(
            "li",
            "Install the same versions, with Python ",
            versions.get("python", "3"),
            ":",
            _block(f"pip install {installed}"),
        ),
        element("li", "Save the configuration as repeat.py:", _block(configuration_file(run))),
    ]
    if run.result["key_fingerprint"] and run.record["config"].get("encryption", "none") != "none":
        fingerprint = element("code", run.result["key_fingerprint"])
        steps.append(
            element("li", "Get the key with the fingerprint ", fingerprint, " from its owner, and name its file.")
        )
        option = " --config.key_file=KEY_FILE"
    else:
        option = ""
    command = f"ppvit train --config=repeat.py --workdir=runs/repeat{option}"
    steps.append(element("li", "Train:", _block(command)))
    return section("Repeat this run", element("ol", *steps), id_="repeat")


def configuration_file(run: RunFiles) -> str:
    """Returns a configuration file in Python that sets the fields in which the run differs from the defaults."""
    defaults = _defaults()
    lines = [
        f"    config.{name} = {_literal(value)}"
        for name, value in public_settings(run.record["config"]).items()
        if name in defaults and value != defaults[name]
    ]
    start = [
        "from ppvit_jax.config import default_config",
        "",
        "",
        "def get_config():",
        "    config = default_config()",
    ]
    return "\n".join([*start, *lines, "    return config", ""])


def duration(seconds: float) -> str:
    """Formats a time, such as "1 h 02 min" or "14 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s" if seconds >= 10 else f"{seconds:.1f} s"


def memory(count: int) -> str:
    """Formats a number of bytes."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _defaults() -> dict[str, Any]:
    return public_settings(json.loads(default_config().to_json()))


def _literal(value: Any) -> str:
    """Returns a value of JSON in Python; the lists of a configuration are tuples."""
    return repr(tuple(value) if isinstance(value, list) else value)


def _code(value: Any) -> Html:
    return element("code", value if isinstance(value, str) and value else _literal(value))


def _block(text: str) -> Html:
    return element("pre", element("code", text), tabindex=0)
