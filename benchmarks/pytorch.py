"""Imports torchvision alongside a CPU build of PyTorch."""

_OPERATORS = """nms qnms roi_align roi_pool ps_roi_align ps_roi_pool qroi_align deform_conv2d _roi_align_backward
_roi_pool_backward _ps_roi_align_backward _ps_roi_pool_backward _deform_conv2d_backward"""


def import_torchvision():
    """torchvision, or None where it or PyTorch is not installed.

    The wheel on PyPI is built for CUDA and lacks its C++ operators alongside a CPU build of PyTorch. Its networks need
    none of them, and empty definitions are enough to import it.
    """
    try:
        import torchvision
    except ImportError:
        return None
    except RuntimeError:
        from torch.library import Library

        operators = Library("torchvision", "DEF")
        for name in _OPERATORS.split():
            operators.define(f"{name}(Tensor x) -> Tensor")
        import torchvision
    return torchvision
