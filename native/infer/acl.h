// What this program uses of AscendCL, declared by ourselves after its documented interface; nothing is linked, the
// functions are looked up in libascendcl.so.
#pragma once

#include <cstddef>
#include <cstdint>

using aclError = int;
constexpr aclError ACL_SUCCESS = 0;

enum aclDataType : int { ACL_FLOAT = 0, ACL_FLOAT16 = 1, ACL_UINT8 = 4 };
enum aclrtMemMallocPolicy : int { ACL_MEM_MALLOC_HUGE_FIRST = 0 };
enum aclrtMemcpyKind : int { ACL_MEMCPY_HOST_TO_DEVICE = 1, ACL_MEMCPY_DEVICE_TO_HOST = 2 };

struct aclmdlIODims {
    char name[128];
    size_t dimCount;
    int64_t dims[128];
};
struct aclmdlBatch {
    size_t batchCount;
    uint64_t batch[128];
};
struct aclmdlDesc;
struct aclmdlDataset;
struct aclDataBuffer;

// The second input of a model with several batch sizes.
constexpr const char *ACL_DYNAMIC_TENSOR_NAME = "ascend_mbatch_shape_data";

// X(result, name, parameters)
#define ACL_FUNCTIONS(X)                                                                                     \
    X(aclError, aclInit, (const char *))                                                                     \
    X(aclError, aclFinalize, ())                                                                             \
    X(const char *, aclGetRecentErrMsg, ())                                                                  \
    X(aclError, aclrtSetDevice, (int32_t))                                                                   \
    X(aclError, aclrtResetDevice, (int32_t))                                                                 \
    X(aclError, aclrtMalloc, (void **, size_t, aclrtMemMallocPolicy))                                        \
    X(aclError, aclrtFree, (void *))                                                                         \
    X(aclError, aclrtMemcpy, (void *, size_t, const void *, size_t, aclrtMemcpyKind))                        \
    X(aclError, aclmdlLoadFromFile, (const char *, uint32_t *))                                              \
    X(aclError, aclmdlUnload, (uint32_t))                                                                    \
    X(aclmdlDesc *, aclmdlCreateDesc, ())                                                                    \
    X(aclError, aclmdlDestroyDesc, (aclmdlDesc *))                                                           \
    X(aclError, aclmdlGetDesc, (aclmdlDesc *, uint32_t))                                                     \
    X(size_t, aclmdlGetNumInputs, (aclmdlDesc *))                                                            \
    X(size_t, aclmdlGetNumOutputs, (aclmdlDesc *))                                                           \
    X(size_t, aclmdlGetInputSizeByIndex, (aclmdlDesc *, size_t))                                             \
    X(size_t, aclmdlGetOutputSizeByIndex, (aclmdlDesc *, size_t))                                            \
    X(aclError, aclmdlGetInputDims, (const aclmdlDesc *, size_t, aclmdlIODims *))                            \
    X(aclError, aclmdlGetOutputDims, (const aclmdlDesc *, size_t, aclmdlIODims *))                           \
    X(aclDataType, aclmdlGetInputDataType, (const aclmdlDesc *, size_t))                                     \
    X(aclDataType, aclmdlGetOutputDataType, (const aclmdlDesc *, size_t))                                    \
    X(aclError, aclmdlGetInputIndexByName, (const aclmdlDesc *, const char *, size_t *))                     \
    X(aclError, aclmdlGetDynamicBatch, (const aclmdlDesc *, aclmdlBatch *))                                  \
    X(aclError, aclmdlSetDynamicBatchSize, (uint32_t, aclmdlDataset *, size_t, uint64_t))                    \
    X(aclmdlDataset *, aclmdlCreateDataset, ())                                                              \
    X(aclError, aclmdlDestroyDataset, (const aclmdlDataset *))                                               \
    X(aclDataBuffer *, aclCreateDataBuffer, (void *, size_t))                                                \
    X(aclError, aclDestroyDataBuffer, (const aclDataBuffer *))                                               \
    X(aclError, aclmdlAddDatasetBuffer, (aclmdlDataset *, aclDataBuffer *))                                  \
    X(aclError, aclmdlExecute, (uint32_t, const aclmdlDataset *, aclmdlDataset *))
