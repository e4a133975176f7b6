"""``make release-check``: build the packages, and use the wheel in a new environment, away from the source tree."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).parents[1]
OUT = ROOT / "build" / "dist"
PLACE = ROOT / "build" / "release-check"
LARGEST = 8_000_000
"""Bytes of the wheel."""
COMPANION = ROOT / "packages" / "vistrim-reference-lm"
COMMANDS = (
    "vistrim --version",
    "vistrim methods",
    'vistrim run examples/images/scene-3.png -p "What color is the star?" --compare --repeats 1 --overlay kept.png',
    "vistrim run examples/images/scene-3.png -p Describe --model reference-quecc-16 --method quecc --json",
)


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    """Run a command without the paths of this environment."""
    outside = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    print("$", *command, flush=True)
    subprocess.run([str(part) for part in command], cwd=cwd, check=True, env=outside)


def build() -> Path:
    """Build both packages, the wheel from the source distribution, and return the wheel."""
    shutil.rmtree(OUT, ignore_errors=True)
    # setuptools would pack what an earlier build left there.
    shutil.rmtree(ROOT / "build" / "lib", ignore_errors=True)
    for project in (ROOT, COMPANION):
        run(sys.executable, "-m", "build", "--outdir", OUT, project)
    (wheel,) = OUT.glob("vistrim-*.whl")
    return wheel


def check_contents(wheel: Path) -> None:
    """Check the size, and that nothing is packed but the library."""
    (sdist,) = OUT.glob("vistrim-[0-9]*.tar.gz")
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB, {sdist.name}: {sdist.stat().st_size / 1e6:.2f} MB")
    with ZipFile(wheel) as opened:
        packed = opened.namelist()
        metadata = opened.read(next(name for name in packed if name.endswith("METADATA"))).decode()
    tops = {name.split("/")[0] for name in packed}
    assert tops == {"vistrim", wheel.name.rsplit("-", 3)[0] + ".dist-info"}, tops
    stray = [name for name in packed if re.search(r"training|optimizer|\.(pt|bin|ckpt|lock|pyc|log)$", name)]
    assert not stray, stray
    assert "Description-Content-Type: text/markdown" in metadata
    with tarfile.open(sdist) as archive:
        inside = {name.split("/", 1)[-1].split("/")[0] for name in archive.getnames()}
    assert not inside & {"tests", "studies", "training", "docs", "notebooks", ".venv", "build"}, inside
    assert wheel.stat().st_size < LARGEST, f"the wheel has {wheel.stat().st_size} bytes, more than {LARGEST}"


def use(wheel: Path) -> None:
    """Install the wheel in a new environment, and run the README's example and some commands there."""
    shutil.rmtree(PLACE, ignore_errors=True)
    venv.create(PLACE / "env", with_pip=True)
    programs = PLACE / "env" / "bin"
    run(programs / "python", "-m", "pip", "install", "--quiet", "--no-compile", "-c", ROOT / "constraints.txt", "torch")
    run(programs / "python", "-m", "pip", "install", "--quiet", "--no-compile", "-c", ROOT / "constraints.txt", wheel)
    work = PLACE / "work"
    shutil.copytree(ROOT / "examples" / "images", work / "examples" / "images")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    assert example is not None
    where = "\nfrom pathlib import Path\nassert 'site-packages' in Path(vistrim.__file__).parts\n"
    (work / "readme.py").write_text(example[1] + where, encoding="utf-8")
    run(programs / "python", "readme.py", cwd=work)
    for command in COMMANDS:
        run("bash", "-c", f'PATH="{programs}:$PATH" {command}', cwd=work)
    assert (work / "kept.png").stat().st_size > 0


if __name__ == "__main__":
    built = build()
    check_contents(built)
    use(built)
    print("release-check: all right")
