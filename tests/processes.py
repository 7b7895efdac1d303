"""The runtime in processes of its own, so that they can be killed."""

import json
from typing import Any

from pydantic import BaseModel, SecretStr


def settings_json(part: BaseModel) -> str:
    """A part of the settings with its secrets in clear, for a child's standard input."""

    def revealed(value: Any) -> Any:
        match value:
            case SecretStr():
                return value.get_secret_value()
            case dict():
                return {key: revealed(item) for key, item in value.items()}
            case list() | tuple():
                return [revealed(item) for item in value]
            case _:
                return value

    return json.dumps(revealed(part.model_dump()))
