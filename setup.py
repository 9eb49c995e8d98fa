"""The description of the package, which is README.md without the head that the Hub reads.

All else is in setup.cfg. A page of a package index would show that head as a heading.
"""

from pathlib import Path

from setuptools import setup


def description(readme: str) -> str:
    """Return a README without the YAML between its first two lines of dashes."""
    head, _, body = readme.partition("\n---\n")
    return body.lstrip() if head.startswith("---\n") else readme


if __name__ == "__main__":
    setup(long_description=description(Path(__file__).with_name("README.md").read_text("utf-8")))
