#!/bin/sh
# Started again, it goes on. Arguments override. Predictions of what it has trained:
#   sh ret_vatex_en_videoswin.sh training_parameters.run_type predict training_parameters.save_dir save/predict/ret_vatex_en_videoswin \
#       training_parameters.resume_file save/finetune/ret_vatex_en_videoswin
exec antmmf run finetune/ret_vatex_en_videoswin --nproc-per-node auto \
    training_parameters.save_dir=save/finetune/ret_vatex_en_videoswin training_parameters.resume=auto "$@"
