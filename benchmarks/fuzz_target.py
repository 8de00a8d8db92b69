"""What libFuzzer calls with each input: `fuzz_text.py` starts it in a process of its own.

    python benchmarks/fuzz_target.py PROMISES CORPUS [options of libFuzzer]

PROMISES are names in `text_promises.py`, with commas between them. Of what is imported before the readers, nothing may
import them: the fuzzer sees only lines that were instrumented on import.
"""

import sys

READERS = (
    *("actions", "chat", "grading", "json_schema", "numerals", "operations", "prompts", "released_grading"),
    "released_protocol",
)
EVERY = 5_000
"""Inputs of which one is repeated to a great length."""


def main() -> None:
    """Run the fuzzer until it ends the process."""
    import atheris

    _, promises, *arguments = sys.argv
    with atheris.instrument_imports(include=[f"pixel_env.{reader}" for reader in READERS]):
        from benchmarks import text_promises

    checks = [getattr(text_promises, f"check_{name}") for name in promises.split(",")]
    count = due = 0

    def one_input(data: bytes) -> None:
        nonlocal count, due
        count += 1
        text = data.decode("utf-8", "surrogateescape")
        for check in checks:
            check(text)
        if text and count >= due:  # the first input of a fuzzer is the empty one
            text_promises.check_growth(text)
            due = count + EVERY

    atheris.Setup([sys.argv[0], *arguments], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
