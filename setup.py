"""What a wheel holds beyond `jepa_ray`: the search spaces, and `analysis` under a name that cannot collide with another package's.

In a checkout (and in `pip install -e .`) `analysis` is a package of its own. In a wheel it is `jepa_ray_analysis`, and whatever names
it (imports, commands in messages) is rewritten while the wheel is built.
"""

import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
NAMED = re.compile(r"\b(from |import )analysis\b|(?<![\w/.])analysis(?=\.[a-z_{])")


def renamed(text: str) -> str:
    """A module's text with `analysis` under its name in the wheel."""
    return NAMED.sub(lambda match: f"{match[1] or ''}jepa_ray_analysis", text)


class Build(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        built = Path(self.build_lib)
        for old in ("jepa_ray_analysis", "jepa_ray/search_spaces"):
            shutil.rmtree(built / old, ignore_errors=True)  # of an earlier build
        (built / "analysis").rename(built / "jepa_ray_analysis")
        for path in [*(built / "jepa_ray").rglob("*.py"), *(built / "jepa_ray_analysis").rglob("*.py")]:
            path.write_text(renamed(path.read_text(encoding="utf-8")), encoding="utf-8")
        shutil.copytree(ROOT / "search_spaces", built / "jepa_ray" / "search_spaces")


setup(cmdclass={"build_py": Build})
