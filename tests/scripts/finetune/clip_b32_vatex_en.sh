#!/bin/sh
# Started again, it goes on. Arguments override. Predictions of what it has trained:
#   sh clip_b32_vatex_en.sh training_parameters.run_type predict training_parameters.save_dir save/predict/clip_b32_vatex_en \
#       training_parameters.resume_file save/finetune/clip_b32_vatex_en
exec antmmf run finetune/clip_b32_vatex_en --nproc-per-node auto \
    training_parameters.save_dir=save/finetune/clip_b32_vatex_en training_parameters.resume=auto "$@"
