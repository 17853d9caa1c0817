#!/usr/bin/env bash
# A folder for your own method: a working copy of ESD, or of SANet, under its name, its README's headings to be filled in.
#   bash scripts/new_method.sh [--style-transfer] NAME
set -euo pipefail
cd "$(dirname "$0")/.."
refuse() { echo "error: $*" >&2; exit 2; }

package=machine_unlearning template=esd Template=ESD source="ESD (Gandikota et al., ICCV 2023)"
if [[ ${1:-} == --style-transfer ]]; then
    package=style_transfer template=sanet Template=SANet source="SANet (Park \& Lee, CVPR 2019)"
    shift
fi
[[ $# == 1 ]] || refuse "give one name, as in: bash scripts/new_method.sh my_method"
method=$1 from=$package/$template folder=$package/$1
[[ $method =~ ^[a-z][a-z0-9_]*$ ]] ||
    refuse "$method: not a name of a method; use small letters, digits and underscores, a letter first"
[[ $method != base ]] || refuse "base: the name of the model that nothing was unlearned from; choose another"
[[ ! -e $folder && ! -e $folder.py ]] || refuse "$folder: exists already; choose another name or remove it"

mkdir "$folder"
cp "$from"/{__init__.py,config.yaml} "$folder"
for file in "$from"/*.py; do
    [[ $file == */__init__.py ]] ||
        sed "1s/.*/\"\"\"$method: starts as a copy of $source; say here what it does instead/
            s/\b$template\b/$method/g; s/\b${template}_/${method}_/g" "$file" > "$folder/${file##*/}"
done
for file in "$from"/*.sh; do
    sed "s/\b$template\b/$method/g; s/^# $Template:/# $method:/" "$file" > "$folder/${file##*/}"
done
awk -v method="$method" -v template="$template" '
    BEGIN {
        hint["Paper"] = "Authors: *Title*, venue and year (arXiv number)."
        hint["Idea"] = "What is trained towards what, in two or three sentences; the formula is in `train.py`."
        hint["Expected numbers"] = "Published, if there are any; on the miniature, the rows of `python -m evaluation.tables runs`."
        hint["Training"] = "Losses, settings, seconds."
        hint["Cost"] = "What a step or an image costs, what is read, what is stored."
        hint["Choices"] = "- What the paper leaves open or the official code does otherwise, and what was chosen here."
        hint["Files"] = "- What is in each file of this folder."
    }
    /^# / { print "# " method; next }
    /^## / {
        if (heading != "Run") print ""  # the text under Run is kept, with its last empty line
        heading = substr($0, 4)
        print
        if (heading in hint) print hint[heading]
        next
    }
    heading == "Run" { gsub(template, method); print }
' "$from/README.md" > "$folder/README.md"

echo "$folder is a working copy of $Template. Put your loss and loop in train.py and your settings in config.yaml. Next:"
if [[ $package == style_transfer ]]; then
    cat <<END

    bash style_transfer/$method/train.sh --out checkpoints/mini/style_transfer/$method
    bash style_transfer/$method/transfer.sh
    bash style_transfer/$method/eval.sh
    python -m pytest tests/style_transfer/test_training.py tests/style_transfer/test_transfer_methods.py -k $method
END
else
    cat <<END

    bash machine_unlearning/$method/train.sh Sketch Cats
    bash machine_unlearning/$method/eval.sh Sketch Cats
    python -m pytest tests/machine_unlearning/test_methods.py -k $method
END
fi
