"""The paper's benchmark of manipulation localization (section 4): the contract of a localizer, and the methods that MaLP is compared with.

    localizer           the contract: localize(images) -> map and score; protect(images) for proactive methods
    loading             localizers as the command line names them
    malp_localizer      MaLP, a trained one or the authors'
    methods             the trainable methods by name; saving one
    baseline            what they have in common
    resnet_map          ResNet-50 map regression
    ffd                 Dang et al. (ffd_network: its Xception with an attention map)
    patch_forensics     Chai et al. (patch_networks: every published depth)
    fakelocator         Huang et al.
    nataraj             co-occurrence matrices, detection only
    autogan             spectra, detection only
    cnndetection        Wang et al., detection only
    imd_detector        proactive image manipulation detection, detection only
    xception, lanczos, template_choice   parts of these
    pixels              F1, IoU and AUC of maps, image by image
    printed             the paper's printed numbers
    attack_templates    templates made by FGSM, PGD and CW (Table 7)
    suite               the generators, their images, and the localizers of a benchmark
    inputs              sampled images and their edits, kept by content
    measure             what one localizer finds in one generator's edits, image by image
    intervals, results  means with intervals; the lines of a benchmark's folder
    run, speed          all localizers on all generators; images per second
    cells, cell_text, table_2, table_4, tables, differences, figures, page   what is shown
"""
