"""The 15 corruptions of ImageNet-C at five severities, for images of any size.

Hendrycks and Dietterich, 2019, arXiv:1903.12261; the parameters are those of
github.com/hendrycks/robustness, ImageNet-C/create_c/make_imagenet_c.py, the code is for batches of
tensors.

Parameters are for images of 224 pixels. Lengths follow the smaller side of the image; weights,
probabilities and the strength of noise stay. Below 128 pixels, where lengths would be about a pixel
or less, glass blur, snow and elastic transform have other parameters, and fog one, stated there.
With them the squared error grows with every severity. From 128 pixels on, where all parameters are
the published ones, that of elastic transform falls from the second severity to the third, and
severities 2 and 3 of snow and 3 and 4 of fog are about equal.

Deviations are stated where they are made. One concerns all: values are rounded to the nearest
level, not down. The authors' sets for small images, CIFAR-10-C and Tiny-ImageNet-C, have milder
parameters, so that numbers cannot be compared with theirs.
"""
