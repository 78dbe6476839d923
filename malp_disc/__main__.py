"""``python -m malp_disc COMMAND`` is ``malp-disc COMMAND``; with several processes ``accelerate launch -m malp_disc finetune …``."""

from malp_disc.cli import main

if __name__ == "__main__":
    main()
