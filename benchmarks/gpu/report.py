"""The figures as tables in Markdown."""

from __future__ import annotations

from typing import Any

__all__ = ["show"]

_GRAPHS = {None: "graphs by default", True: "everything in graphs", False: "no graphs"}
"""The key `cuda_graphs` in words."""


def show(figures: dict[str, Any]) -> None:
    """Prints all tables."""
    print(f"\n{figures['device']}, torch {figures['torch']}")
    for entry in figures["engine"]:
        graphs = _GRAPHS[entry["cuda_graphs"]]
        if "attention" in entry:
            print(
                f"\n{entry['shape']}, {graphs}, {entry['attention']}: weights "
                f"{entry['weight_bytes'] / 1e9:.2f} GB, cache {entry['cache_bytes'] / 1e9:.2f} GB, bandwidth "
                f"{entry['bandwidth_bytes_per_second'] / 1e9:.0f} GB/s, started in {entry['start_seconds']:.1f} s\n"
            )
            print("| requests | prompt | sampling | tokens/s | step, ms | roofline | share | captures |")
            print("|---|---|---|---|---|---|---|---|")
        elif "cancel_to_idle_seconds" in entry:
            print(f"\ncancel to idle: {1000 * entry['cancel_to_idle_seconds']:.0f} ms")
        else:
            print(
                f"| {entry['requests']} | {entry['prompt']} | {entry['sampling']} | {entry['tokens_per_second']:.0f} | "
                f"{entry['step_ms']:.1f} | {entry['roofline']:.0f} | {entry['share']:.0%} | {entry['captures']} |"
            )
    _show_profiles([entry for entry in figures["engine"] if "profile" in entry])
    if figures["server"]:
        print("\n| served model | clients | tokens/s | first token, ms | step, ms |\n|---|---|---|---|---|")
    for entry in figures["server"]:
        print(
            f"| {entry['shape']} | {entry['clients']} | {entry['tokens_per_second']:.0f} | "
            f"{entry['first_token_ms'] or 0:.0f} | {entry['step_ms'] or 0:.1f} |"
        )
    memory = figures["memory"]
    print(f"\ndevice memory before: {memory['bytes_before'] / 1e6:.0f} MB; after: {memory['bytes_after'] / 1e6:.0f} MB")
    for failure in figures["failures"]:
        print(f"failed: {failure}")


def _show_profiles(entries: list[dict[str, Any]]) -> None:
    if not entries:
        return
    print("\nA decode step in milliseconds: the host's parts, and the device.\n")
    print(
        "| model | graphs | requests | sampling | step | prepare | forward | sample | wait | update | busy | kernels |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for entry in entries:
        parts = entry["profile"]
        values = [f"{parts[part]:.1f}" for part in ("step", "prepare", "forward", "sample", "wait", "update")]
        values += [f"{parts['busy']:.1f}", f"{parts['kernels']:.0f}"] if "busy" in parts else ["", ""]
        graphs = _GRAPHS[entry["cuda_graphs"]]
        columns = [entry["shape"], graphs, str(entry["requests"]), entry["sampling"], *values]
        print(f"| {' | '.join(columns)} |")
