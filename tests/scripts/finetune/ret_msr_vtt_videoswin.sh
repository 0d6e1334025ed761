#!/bin/sh
# Started again, it goes on. Arguments override. Predictions of what it has trained:
#   sh ret_msr_vtt_videoswin.sh training_parameters.run_type predict training_parameters.save_dir save/predict/ret_msrvtt_7k_videoswin \
#       training_parameters.resume_file save/finetune/ret_msrvtt_7k_videoswin
exec antmmf run finetune/ret_msrvtt_7k_videoswin --nproc-per-node auto \
    training_parameters.save_dir=save/finetune/ret_msrvtt_7k_videoswin training_parameters.resume=auto "$@"
