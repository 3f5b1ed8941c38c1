#!/usr/bin/env bash
# `dvc add` leaves a linked folder out and says nothing (dvc 3.67.1, Linux): a data set whose class folder `dog` is a
# symbolic link is added with exit code 0, and the .dvc file counts the two images of `cat` alone (nfiles: 2), though one
# of them is a link to a *file*, which is added with its content. Whoever pulls it gets a data set with one class less.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check dvc==3.67.1
export PATH="$folder/venv/bin:$PATH"
mkdir -p "$folder/project/data/cat" "$folder/elsewhere/dog"
cd "$folder/project"
git init --quiet
dvc init --quiet
echo 1 > data/cat/1.png
echo 2 > "$folder/elsewhere/dog/2.png"
echo 3 > "$folder/elsewhere/3.png"
ln -s "$folder/elsewhere/3.png" data/cat/3.png
ln -s "$folder/elsewhere/dog" data/dog
code=0
said=$(dvc add data 2>&1) || code=$?
count=$(sed -n 's/.*nfiles: //p' data.dvc)
warned=$(grep -ciE 'link|skip|ignor' <<< "${said//.gitignore/}" || true)
echo "dvc $(dvc --version): exit code $code, nfiles $count (three images are below data/), lines about links or skipping: $warned"
[ "$code" = 0 ] && [ "$count" = 2 ] && [ "$warned" = 0 ]
