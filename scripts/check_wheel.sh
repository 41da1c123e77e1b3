#!/usr/bin/env bash
# Build a wheel, install it into an empty folder, and compose the config from an empty directory.
# usage: check_wheel.sh PYTHON     (its environment holds the dependencies)
set -euo pipefail
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m build --wheel --no-isolation --outdir "$work/dist" . >"$work/log" 2>&1 ||
  { cat "$work/log"; exit 1; }
"$python" -m pip install --quiet --no-deps --target "$work/site" "$work"/dist/*.whl
mkdir "$work/empty"
cd "$work/empty"
export PYTHONPATH=$work/site
"$python" - "$work/site" <<'PYTHON'
import sys
import anatosegnet.config.composition as config
assert config.__file__.startswith(sys.argv[1]), f"not the wheel: {config.__file__}"
assert str(config.config_directory()).startswith(sys.argv[1]), config.config_directory()
from anatosegnet.report.html import TEMPLATE
assert (TEMPLATE / "base.html").is_file() and (TEMPLATE / "cases.js").is_file(), TEMPLATE
PYTHON
for verb in train evaluate compare predict prepare tune runs export app; do
  "$python" -m "anatosegnet.$verb" --cfg job >"$work/$verb.yaml"
done
grep -q '_target_: anatosegnet.models.AnatoSegNet' "$work/train.yaml"
"$python" -m anatosegnet.train --cfg job data=busi experiment=released sweep=seeds >/dev/null
"$work/site/bin/anatosegnet" train --cfg job | cmp - "$work/train.yaml"
test "$("$work/site/bin/anatosegnet")" = "$("$python" -m anatosegnet)"
test ! -e "$work/site/anatosegnet/configs/local" || { echo "a user's own configs"; exit 1; }
test -z "$(ls)" || { echo "left behind: $(ls)"; exit 1; }
echo "wheel ok: $(basename "$work"/dist/*.whl)"
