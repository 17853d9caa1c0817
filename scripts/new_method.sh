#!/usr/bin/env bash
# A folder for your own unlearning method: a working copy of ESD under its name, its README's headings to be filled in.
#   bash scripts/new_method.sh NAME
set -euo pipefail
cd "$(dirname "$0")/.."
refuse() { echo "error: $*" >&2; exit 2; }

[[ $# == 1 ]] || refuse "give one name, as in: bash scripts/new_method.sh my_method"
method=$1 source=machine_unlearning/esd folder=machine_unlearning/$1
[[ $method =~ ^[a-z][a-z0-9_]*$ ]] ||
    refuse "$method: not a name of a method; use small letters, digits and underscores, a letter first"
[[ $method != base ]] || refuse "base: the name of the model that nothing was unlearned from; choose another"
[[ ! -e $folder && ! -e $folder.py ]] || refuse "$folder: exists already; choose another name or remove it"

mkdir "$folder"
cp "$source"/{__init__.py,config.yaml} "$folder"
sed "1s/.*/\"\"\"$method: starts as a copy of ESD (Gandikota et al., ICCV 2023); say here what it does instead/
    s/\besd\b/$method/g; s/\besd_/${method}_/g" "$source/train.py" > "$folder/train.py"
for file in train.sh eval.sh; do
    sed "s/\besd\b/$method/g; s/^# ESD:/# $method:/" "$source/$file" > "$folder/$file"
done
awk -v method="$method" '
    BEGIN {
        hint["Paper"] = "Authors: *Title*, venue and year (arXiv number)."
        hint["Idea"] = "What is trained towards what, in two or three sentences; the formula is in `train.py`."
        hint["Expected numbers"] = "Published, if there are any; on the miniature, the rows of `python -m evaluation.tables runs`."
        hint["Cost"] = "Passes of the UNet a step, images needed, weights stored."
        hint["Choices"] = "- What the paper leaves open or the official code does otherwise, and what was chosen here."
        hint["Files"] = "- `train.py`: loss and loop.\n- `config.yaml`: settings of the three variants.\n" \
            "- `train.sh`, `eval.sh`: unlearn, and sample, predict and score, the targets named."
    }
    /^# / { print "# " method; next }
    /^## / {
        if (heading != "Run") print ""  # the text under Run is kept, with its last empty line
        heading = substr($0, 4)
        print
        if (heading in hint) print hint[heading]
        next
    }
    heading == "Run" { gsub(/esd/, method); print }
' "$source/README.md" > "$folder/README.md"

cat <<END
$folder is a working copy of ESD. Put your loss and loop in train.py and your settings in config.yaml. Next:

    bash machine_unlearning/$method/train.sh Sketch Cats
    bash machine_unlearning/$method/eval.sh Sketch Cats
    python -m pytest tests/machine_unlearning/test_methods.py -k $method
END
