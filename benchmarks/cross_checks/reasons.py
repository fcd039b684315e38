"""Says why a peer's attributions differ from ours by more than rounding or chance.

It also says what was done to make them comparable.
"""

ENDS = "mean over points that take in both ends of the path, each with its full weight"

REASONS = {
    ("integrated_gradients: CNN, midpoints", "xplique"): "trapezoid rule",
    (
        "integrated_gradients: CNN, midpoints",
        "tf_explain",
    ): f"{ENDS}; the factor x - x', which it leaves out, was put in",
    ("integrated_gradients: CNN, midpoints", "saliency"): ENDS,
    ("integrated_gradients: MLP, many points", "captum"): "its trapezoid weights sum to 1 - 1/n",
    ("guided_integrated_gradients: CNN", "saliency"): (
        "gradients at the starts of steps, not means of both ends, and a path that turns on"
        " comparing gradients, so that ours changes as much with the number of steps. Its call of"
        " `np.quantile` fails since NumPy 2.4, and was mended"
    ),
    (
        "guided_integrated_gradients: MLP, many points",
        "saliency",
    ): "gradients at the starts of steps: an error of first order",
    (
        "blur_integrated_gradients: CNN",
        "saliency",
    ): (
        "its Gaussian is sampled at whole places, and close to one for smooth images only, as these"
        " are; gradients at the starts of steps"
    ),
    (
        "layer_conductance: MLP, many points",
        "captum",
    ): "gradients at the starts of steps: mean of the path and its reverse",
    ("deep_lift: CNN", "captum"): (
        "where a pooling stands directly behind a rectifier, the rule of the rectifier gets the"
        " gradient that the rule of the pooling has not changed yet"
    ),
    (
        "deep_lift: CNN, layers between",
        "captum",
    ): "with a layer that does nothing behind each layer",
    ("vargrad: CNN, draws", "xplique"): "it divides by n - 1, taken out here",
    ("saliency: CNN, sizes", "xplique"): "it has no signs",
    (
        "grad_cam_plus_plus: CNN",
        "xplique",
    ): "means over places in place of sums, in alpha and in the weights",
    (
        "grad_cam_plus_plus: CNN",
        "tf_keras_vis",
    ): "the factor exp(S) is left in, and alpha divided by its sum over places",
    ("grad_cam_plus_plus: CNN", "pytorch_grad_cam"): "1e-6 is added to the denominator of alpha",
    (
        "score_cam: CNN",
        "tf_keras_vis",
    ): "softmax over classes, not over channels; maps enlarged with their corners aligned",
    ("score_cam: CNN", "pytorch_grad_cam"): "maps enlarged with their corners aligned",
    ("score_cam: CNN, centres aligned", "pytorch_grad_cam"): "with the centres of places aligned",
    (
        "eigen_cam: CNN",
        "pytorch_grad_cam",
    ): "the mean over places is taken off each channel first, and the sign is that of the SVD",
    ("eigen_cam: CNN, centred, sizes", "pytorch_grad_cam"): "the same done to our model",
    (
        "occlusion: CNN, one place on",
        "saliency",
    ): "it sums where positions overlap: divided by their number",
    ("occlusion: CNN, grey", "tf_explain"): "it writes 1 - F, enlarged: both taken out",
    (
        "kernel_shap: MLP, draws",
        "xplique",
    ): "it fits an intercept, and does not hold the sum to F(x) - F(x')",
    (
        "rise: CNN, draws",
        "xplique",
    ): "it stretches cells by a seventh, and divides by the sum of the masks drawn",
    ("rise: MLP, draws", "xplique"): "it divides by the sum of the masks drawn",
    (
        "sobol: CNN, the same design",
        "xplique",
    ): "it divides by the variance of the first points alone: shares of the sum are compared",
}
