#!/usr/bin/env bash
# The commands of celeba-branch.md.
#
#   CELEBA      folder with images/ and list_attr.csv: the first 8,000 aligned faces of CelebA's training split at half size (89x109)
#   INCEPTION   pytorch-fid's Inception weights    MOBILEFACE  MobileFaceNet checkpoint
set -eu
cd "$(dirname "$0")/../../.."
RUNS=${RUNS:-runs/celeba-branch}
mkdir -p "$RUNS"
DATA="--data folder --data-root $CELEBA/images --attributes $CELEBA/list_attr.csv --selected-attributes Black_Hair Blond_Hair Brown_Hair Male Young --crop-size 89"
G=weights/celeba64/G-long.safetensors

# Its own discriminator isn't in the repository: a new one, trained against the unchanged generator (G is never updated: --n-critic is larger than the number of steps)
python - "$RUNS/D-random.safetensors" <<'PYTHON'
import sys
from pathlib import Path
import torch
from generators.stargan import StarGANDiscriminator, deepest_repeat_num
from malp_disc.serialization.state_dicts import save_tensors
torch.manual_seed(0)
save_tensors(Path(sys.argv[1]), StarGANDiscriminator(image_size=64, conv_dim=32, c_dim=5, repeat_num=deepest_repeat_num(64)).state_dict())
PYTHON
python recipes/train_stargan.py $DATA --generator-checkpoint "$G" --discriminator-checkpoint "$RUNS/D-random.safetensors" --max-train-steps 900 --n-critic 1000000 --warmup-steps 0 \
    --train-batch-size 8 --identity-share 0.25 --reconstruction-weight 30 --learning-rate 2e-4 --discriminator-learning-rate 4e-4 --output-dir "$RUNS/own-d"
python recipes/train_attribute_classifier.py $DATA --steps 500 --width 24 --output "$RUNS/classifier.safetensors"

TUNE="--generator-checkpoint $G --discriminator-checkpoint $RUNS/own-d/D.safetensors --malp weights/celeba64/malp --reconstruction-weight 30 --max-train-steps 250
    --lr-warmup-steps 0 --discriminator-learning-rate 4e-4
    --extractor inception-768 --fid-weights $INCEPTION --second-extractor squeezenet-128 --attribute-classifier $RUNS/classifier.safetensors"

# The choice, on training images
python recipes/research/search_finetuning.py $DATA $TUNE --backbone-depths 2 --rows control vision-aided-2 --output-dir "$RUNS/search-2"
python recipes/research/search_finetuning.py $DATA $TUNE --backbone-depths 4 --rows vision-aided-4 --output-dir "$RUNS/search-4"

# The report, on held-out images
python recipes/finetune_stargan.py $DATA $TUNE --backbone-depths 4 --realness-weight 4 --arms control vision_aided --seeds 0 1 2 --eval-size 500 --reference-size 1500 \
    --smaller-views 2 --face-embedding "$MOBILEFACE" --eval-steps 0 --sample-steps 250 --output-dir "$RUNS/report"

# A control of equal seconds
python recipes/finetune_stargan.py $DATA $TUNE --max-train-steps 370 --arms control --seeds 0 --eval-size 500 --reference-size 1500 \
    --smaller-views 2 --face-embedding "$MOBILEFACE" --eval-steps 0 --sample-steps 370 --output-dir "$RUNS/control-370-steps"

# Against held-out faces: the last 2,000 training images, which the search didn't measure on, are held out too, by a column "split" of the table
python - "$CELEBA" "$RUNS/split.csv" <<'PYTHON'
import csv
import sys
from pathlib import Path
from malp_disc.data import DataOptions, build_dataset
root, output = Path(sys.argv[1]), Path(sys.argv[2])
options = DataOptions(data="folder", data_root=root / "images", attributes=root / "list_attr.csv", crop_size=89)
edited, others = ([Path(path).name for path in build_dataset(options, split).paths] for split in ("test", "train"))
held_out = {*edited, *others[-2000:]}
header, *rows = csv.reader(open(root / "list_attr.csv"))
with open(output, "w", newline="") as file:
    csv.writer(file).writerows([[*header, "split"], *([*row, "test" if row[0] in held_out else "train"] for row in rows)])
PYTHON
HELD_OUT="${DATA/"$CELEBA/list_attr.csv"/$RUNS/split.csv}"
python recipes/train_stargan.py $HELD_OUT --generator-checkpoint "$G" --discriminator-checkpoint "$RUNS/D-random.safetensors" --max-train-steps 3000 --n-critic 1000000 --warmup-steps 0 \
    --train-batch-size 8 --identity-share 0.25 --reconstruction-weight 30 --learning-rate 2e-4 --discriminator-learning-rate 4e-4 --output-dir "$RUNS/own-d-long"
python recipes/train_attribute_classifier.py $HELD_OUT --steps 500 --width 24 --output "$RUNS/classifier-held-out.safetensors"
python recipes/finetune_stargan.py $HELD_OUT --generator-checkpoint "$G" --discriminator-checkpoint "$RUNS/own-d-long/D.safetensors" --malp weights/celeba64/malp --reconstruction-weight 30 \
    --max-train-steps 250 --lr-warmup-steps 0 --discriminator-learning-rate 4e-4 --extractor inception-768 --fid-weights "$INCEPTION" --second-extractor squeezenet-128 \
    --attribute-classifier "$RUNS/classifier-held-out.safetensors" --backbone-depths 4 --realness-weight 4 --arms control vision_aided --seeds 0 1 2 --eval-size 1000 --reference-size 2000 \
    --smaller-views 2 --face-embedding "$MOBILEFACE" --eval-steps 0 --sample-steps 250 --output-dir "$RUNS/held-out"

# The same at 96x96, on other people
#   CELEBA_TEST   folder with images/ and list_attr.csv: 6,500 faces of CelebA's test split at 128x128
OTHERS="--data folder --data-root $CELEBA_TEST/images --attributes $CELEBA_TEST/list_attr.csv --selected-attributes Black_Hair Blond_Hair Brown_Hair Male Young --image-size 96"
python - "$RUNS/own-d/D.safetensors" "$RUNS/D-96.safetensors" <<'PYTHON'  # the last layer depends on the size
import sys
from pathlib import Path
import torch
from safetensors.torch import load_file
from generators.stargan import StarGANDiscriminator, deepest_repeat_num
from malp_disc.serialization.state_dicts import save_tensors
torch.manual_seed(0)
new, old = StarGANDiscriminator(image_size=96, conv_dim=32, c_dim=5, repeat_num=deepest_repeat_num(96)).state_dict(), load_file(sys.argv[1])
save_tensors(Path(sys.argv[2]), {name: old[name] if old[name].shape == value.shape else value for name, value in new.items()})
PYTHON
python recipes/train_stargan.py $OTHERS --generator-checkpoint "$G" --discriminator-checkpoint "$RUNS/D-96.safetensors" --max-train-steps 1500 --n-critic 2 --warmup-steps 0 \
    --train-batch-size 8 --identity-share 0.25 --reconstruction-weight 30 --learning-rate 2e-4 --discriminator-learning-rate 4e-4 --output-dir "$RUNS/gan-96"
python recipes/train_attribute_classifier.py $OTHERS --steps 500 --width 24 --output "$RUNS/classifier-96.safetensors"
# G_raw of the last checkpoint: at the time, the moving average of 750 updates was still half the generator before
python recipes/finetune_stargan.py $OTHERS --generator-checkpoint "$RUNS/gan-96/checkpoint-1500/G_raw.safetensors" --discriminator-checkpoint "$RUNS/gan-96/D.safetensors" \
    --reconstruction-weight 30 --lr-warmup-steps 0 --discriminator-learning-rate 4e-4 --max-train-steps 250 --extractor inception-768 --fid-weights $INCEPTION --second-extractor squeezenet-128 --attribute-classifier "$RUNS/classifier-96.safetensors" \
    --backbone-depths 4 --realness-weight 4 --arms control vision_aided --seeds 0 1 2 --eval-size 500 --reference-size 1500 --smaller-views 2 --face-embedding "$MOBILEFACE" \
    --eval-steps 0 --sample-steps 250 --output-dir "$RUNS/report-96"
