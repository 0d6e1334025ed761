#!/bin/sh
# Started again, it goes on. Arguments override. Predictions of what it has trained:
#   sh vqa_msrvtt_qa_videoswin.sh training_parameters.run_type predict training_parameters.save_dir save/predict/vqa_msrvtt_qa_videoswin \
#       training_parameters.resume_file save/finetune/vqa_msrvtt_qa_videoswin
exec antmmf run finetune/vqa_msrvtt_qa_videoswin --nproc-per-node auto \
    training_parameters.save_dir=save/finetune/vqa_msrvtt_qa_videoswin training_parameters.resume=auto "$@"
