#!/usr/bin/env bash
# The commands of real-faces.md. Each resumes where it stopped if it is run again.
#
# To be run at commit 21f8065, whose flags these are: git worktree add ../malp-21f8065 21f8065, and this file in place of the one there. Since then the pretrained network of vision_aided and feature_map is
# MaLP's second branch (--backbone in place of --vision-aided-network), and the search no longer has the rows pretraining-small, feature-map-50, feature-map-200 and joint-small.
#
#   CELEBA      folder with images/ and list_attr.csv: the first 8,000 aligned faces of CelebA's training split at half size (89x109)
#   FACES144    folder with train/ and test/: face crops of 144x144, for super-resolution
#   INCEPTION   pytorch-fid's Inception weights    SQUEEZENET  torchvision's squeezenet1_0 state dict
#   MOBILEFACE  MobileFaceNet checkpoint           FASTSRGAN   Fast-SRGAN's published model.pt
#   OLD         folder with G.safetensors and D.safetensors of weights/celeba64's StarGAN (its D is not included: docs/results/celeba.md has the command)
set -eu
cd "$(dirname "$0")/../../.."
RUNS=${RUNS:-runs/real-faces}
DATA="--data folder --data-root $CELEBA/images --attributes $CELEBA/list_attr.csv --selected-attributes Black_Hair Blond_Hair Brown_Hair Male Young --crop-size 89"
FID="--extractor inception-768 --fid-weights $INCEPTION"
EXTRACTORS="$FID --second-extractor squeezenet --second-weights $SQUEEZENET --vision-aided-network $SQUEEZENET"
TUNE="--mixed-precision bf16 --reconstruction-weight 30 --max-train-steps 250 --attribute-classifier $RUNS/classifier.safetensors"

# The attribute classifier that measures edit accuracy
[ -e "$RUNS/classifier.safetensors" ] || python recipes/train_attribute_classifier.py $DATA --steps 500 --width 24 --output "$RUNS/classifier.safetensors"

# The search, on an earlier generator and on training images
old() { echo --generator-checkpoint "$OLD/G.safetensors" --discriminator-checkpoint "$OLD/D.safetensors"; }
python recipes/pretrain_malp.py $DATA --generator-checkpoint "$OLD/G.safetensors" --mixed-precision bf16 --max-train-steps 1000 --malp-template-dropout 0.5 \
    --output-dir "$RUNS/old-malp" --resume-from-checkpoint latest
python recipes/research/search_finetuning.py $DATA $(old) $EXTRACTORS $TUNE --malp weights/celeba64/malp --rows control control-slow classifier classifier-share --output-dir "$RUNS/search-blind"
python recipes/research/search_finetuning.py $DATA $(old) $EXTRACTORS $TUNE --malp "$RUNS/old-malp/malp" --output-dir "$RUNS/search" \
    --rows control pretraining-share pretraining-classifier pretraining-faint pretraining-small vision-aided feature-map-10 feature-map-50 feature-map-200 joint-small
python recipes/research/search_finetuning.py $DATA $(old) $EXTRACTORS $TUNE --malp "$RUNS/old-malp/malp" --max-train-steps 500 --lr-scheduler linear --rows pretraining-share --output-dir "$RUNS/search-500"

# A better StarGAN, and a MaLP pretrained with template dropout
python recipes/train_stargan.py $DATA $(old) --max-train-steps 14000 --n-critic 1 --learning-rate 2e-4 --discriminator-learning-rate 4e-4 --warmup-steps 0 --train-batch-size 8 \
    --reconstruction-weight 30 --identity-share 0.25 --mixed-precision bf16 --save-precision float16 --sample-steps 1000 --output-dir "$RUNS/stargan" --resume-from-checkpoint latest
new() { echo --generator-checkpoint "$RUNS/stargan/G.safetensors"; }
python recipes/pretrain_malp.py $DATA $(new) --mixed-precision bf16 --max-train-steps 1000 --malp-template-dropout 0.5 --output-dir "$RUNS/malp" --resume-from-checkpoint latest

# The report: two commands, so that two cores can run one each; their results are joined
report() {
    python recipes/finetune_stargan.py $DATA $(new) --discriminator-checkpoint "$RUNS/stargan/D.safetensors" --malp "$RUNS/malp/malp" $EXTRACTORS $TUNE \
        --cotrain-losses pretraining --gradient-share 0.1 --seeds 0 1 2 --eval-steps 0 --sample-steps 250 --checkpointing-steps 250 \
        --eval-size 1000 --reference-size 1500 --smaller-views 2 --face-embedding "$MOBILEFACE" --resume-from-checkpoint latest "$@"
}
report --arms control random frozen --output-dir "$RUNS/report"
report --arms feature_map vision_aided cotrain --output-dir "$RUNS/report-others"
malp-disc report "$RUNS/report" --join "$RUNS/report-others" --resamples 100

# Is it really harder to localize? A fresh MaLP against the tuned generators of seed 0
for arm in control frozen cotrain; do
    from="$RUNS/report"; [ -e "$from/G-$arm.safetensors" ] || from="$RUNS/report-others"
    python recipes/pretrain_malp.py $DATA --generator-checkpoint "$from/G-$arm.safetensors" --mixed-precision bf16 --max-train-steps 400 --malp-template-dropout 0.5 \
        --output-dir "$RUNS/fresh-$arm" --resume-from-checkpoint latest
done

# A second case: Fast-SRGAN
python recipes/finetune.py --generator fast_srgan --generator-checkpoint "$FASTSRGAN" --losses generators.example_losses:super_resolution --data images --data-root "$FACES144" \
    --image-size 64 --malp-pretrain-steps 400 --max-train-steps 150 --lr-scheduler linear --cotrain-losses pretraining --arms control frozen cotrain vision_aided --seeds 0 1 2 \
    $FID --second-extractor random --vision-aided-network "$SQUEEZENET" --eval-size 400 --reference-size 1200 --smaller-views --face-embedding "$MOBILEFACE" \
    --eval-steps 0 --sample-steps 150 --resume-from-checkpoint latest --output-dir "$RUNS/fast-srgan"
