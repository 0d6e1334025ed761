#!/bin/sh
# Started again, it goes on. Arguments override. Predictions of what it has trained:
#   sh cn_clip_b16_msvd_zh.sh training_parameters.run_type predict training_parameters.save_dir save/predict/cn_clip_b16_msvd_zh \
#       training_parameters.resume_file save/finetune/cn_clip_b16_msvd_zh
exec antmmf run finetune/cn_clip_b16_msvd_zh --nproc-per-node auto \
    training_parameters.save_dir=save/finetune/cn_clip_b16_msvd_zh training_parameters.resume=auto "$@"
