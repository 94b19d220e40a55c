"""A notebook's kernel in this process."""

from typing import Any

from ipykernel.inprocess import InProcessKernelManager


class Notebook:
    """A kernel in this process, and the outputs of its cells."""

    def __init__(self) -> None:
        self.manager = InProcessKernelManager()
        self.manager.start_kernel()
        self.client = self.manager.client()
        self.client.start_channels()

    def run(self, code: str, **names: object) -> list[dict[str, Any]]:
        """What a cell shows: the data of each output, as the last update left it."""
        self.manager.kernel.shell.push(names)
        self.client.execute(code)
        shown: list[dict[str, Any]] = []
        places: dict[str, int] = {}
        while self.client.iopub_channel.msg_ready():
            message = self.client.iopub_channel.get_msg()
            data = message["content"].get("data")
            name = message["content"].get("transient", {}).get("display_id")
            if message["msg_type"] == "update_display_data":
                shown[places[name]] = data
            elif message["msg_type"] in ("display_data", "execute_result"):
                places[name] = len(shown)
                shown.append(data)
        return shown
