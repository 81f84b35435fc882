"""Metadata of a checkpoint: the one record of what a model is and which images it takes."""

import dataclasses
import json


@dataclasses.dataclass(frozen=True)
class Metadata:
    """Metadata of a checkpoint.

    Attributes:
      model: the model's name, such as "ViT-B/16"; "" if unknown.
      image_size: side of an image in pixels; 0 if unknown.
      encryption: the encryption that the model is adapted to; "none" for a plain model.
      key_fingerprint: fingerprint of the key that the model is adapted to; None for a plain model.
      class_names: names of the head's outputs, in order; empty if unknown.
      model_options: options that the arrays do not show; see `ppvit_jax.models.recorded_options`.
    """

    model: str = ""
    image_size: int = 0
    encryption: str = "none"
    key_fingerprint: str | None = None
    class_names: tuple[str, ...] = ()
    model_options: dict[str, str | int] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_json(cls, text: str | bytes) -> "Metadata":
        """Reads the JSON that `to_json` writes. Fields that a later version has added are ignored.

        Raises:
          ValueError: the text is not such JSON.
        """
        fields = json.loads(text)
        if not isinstance(fields, dict):
            raise ValueError("the metadata is not a JSON object")
        names = {field.name for field in dataclasses.fields(cls)}
        metadata = cls(**{name: value for name, value in fields.items() if name in names})
        strings = (metadata.model, metadata.encryption, metadata.key_fingerprint or "", *metadata.class_names)
        if not (
            all(isinstance(value, str) for value in strings)
            and isinstance(metadata.image_size, int)
            and isinstance(metadata.model_options, dict)
            and all(isinstance(value, str | int) for value in metadata.model_options.values())
        ):
            raise ValueError("the metadata has a field of the wrong type")
        return dataclasses.replace(metadata, class_names=tuple(metadata.class_names))

    def to_json(self) -> str:
        """Returns one line of JSON, without `model_options` if there are none."""
        fields = dataclasses.asdict(self)
        if not self.model_options:
            del fields["model_options"]
        return json.dumps(fields)
