"""The paper's benchmark of manipulation localization (section 4): the contract of a localizer, and the methods that MaLP is compared with.

    localizer       the contract: localize(images) -> map and score; protect(images) for proactive methods
    pixels          F1, IoU and AUC of maps, image by image
    printed         the paper's printed numbers
    attack_templates  templates made by FGSM, PGD and CW (Table 7)
"""
