"""The figures as tables in Markdown."""

from __future__ import annotations

from typing import Any

__all__ = ["show"]


def show(figures: dict[str, Any]) -> None:
    """Prints all tables."""
    print(f"\n{figures['device']}, torch {figures['torch']}")
    for entry in figures["engine"]:
        if "attention" in entry:
            print(
                f"\n{entry['shape']}, {entry['variant']} ({entry['note'] or entry['attention']}): weights "
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
    _show_variants([entry for entry in figures["engine"] if "step_ms" in entry])
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


def _show_variants(entries: list[dict[str, Any]]) -> None:
    """Prints the runs that were made with and without what makes the engine fast."""
    by_run: dict[Any, dict[str, float]] = {}
    for entry in entries:
        run = tuple(entry[part] for part in ("shape", "requests", "prompt", "sampling"))
        by_run.setdefault(run, {})[entry["variant"]] = entry["step_ms"]
    compared = {run: steps for run, steps in by_run.items() if len(steps) > 1 and "default" in steps}
    if compared:
        print("\n| model | requests | engine | step, ms | of the default's |\n|---|---|---|---|---|")
    for (shape, requests, _, _), steps in compared.items():
        for variant, step in steps.items():
            print(f"| {shape} | {requests} | {variant} | {step:.1f} | {step / steps['default']:.2f} |")


def _show_profiles(entries: list[dict[str, Any]]) -> None:
    if not entries:
        return
    print("\nA decode step in milliseconds: the host's parts, and the device.\n")
    print(
        "| model | engine | requests | sampling | step | prepare | forward | sample | wait | update "
        "| host | busy | idle | kernels |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for entry in entries:
        parts = entry["profile"]
        values = [f"{parts[part]:.1f}" for part in ("step", "prepare", "forward", "sample", "wait", "update")]
        values.append(f"{sum(parts[part] for part in ('prepare', 'forward', 'sample', 'update')):.1f}")
        on_device = (
            [f"{parts['busy']:.1f}", f"{parts['idle']:.1f}", f"{parts['kernels']:.0f}"] if "busy" in parts else []
        )
        values += on_device or [""] * 3
        columns = [entry["shape"], entry["variant"], str(entry["requests"]), entry["sampling"], *values]
        print(f"| {' | '.join(columns)} |")
