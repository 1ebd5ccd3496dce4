// An Ascend NPU through AscendCL, in one thread; the library is looked up when a .om is opened.
#include <algorithm>
#include <cstring>
#include <dlfcn.h>
#include <functional>

#include "acl.h"
#include "engine.h"
#include "files.h"
#include "flow.h"

namespace {

struct Library {
    Library() {
        void *const handle = dlopen("libascendcl.so", RTLD_NOW | RTLD_GLOBAL);
        if (!handle)
            throw Error(cat("libascendcl.so cannot be loaded (", dlerror(), "); in this shell: source <folder of CANN>/set_env.sh"),
                        RUNTIME);
#define FIND(result, name, parameters)                                                                               \
    name = reinterpret_cast<result(*) parameters>(dlsym(handle, #name));                                             \
    if (!name) throw Error("libascendcl.so has no " #name "; it is of another release than this program knows", RUNTIME);
        ACL_FUNCTIONS(FIND)
#undef FIND
    }

#define DECLARE(result, name, parameters) result(*name) parameters = nullptr;
    ACL_FUNCTIONS(DECLARE)
#undef DECLARE
};

class Ascend : public Engine {
  public:
    Ascend(const std::string &path, size_t batch, size_t device) : path_(path) {
        try {
            open(batch, int32_t(device));
        } catch (...) {
            give_back();
            throw;
        }
    }
    ~Ascend() override { give_back(); }

    void close() override {
        const std::string failed = give_back();
        if (!failed.empty()) throw Error(path_ + ": the results are whole, but " + failed);
    }

    Answers run(size_t, const char *data) override {
        const size_t bytes = input.batch * input.bytes();
        std::string &to = answers_.values;
        const double begun = now();
        check("aclrtMemcpy", acl_.aclrtMemcpy(inputs_[0], input_bytes_, data, bytes, ACL_MEMCPY_HOST_TO_DEVICE));
        if (dynamic_)
            check("aclmdlSetDynamicBatchSize", acl_.aclmdlSetDynamicBatchSize(model_, in_, dynamic_input_, input.batch));
        const double copied = now();
        check("aclmdlExecute", acl_.aclmdlExecute(model_, in_, out_));
        const double ended = now();
        check("aclrtMemcpy", acl_.aclrtMemcpy(&to[0], to.size(), output_, to.size(), ACL_MEMCPY_DEVICE_TO_HOST));
        answers_.span = {copied, ended};
        answers_.to_device_ms = 1000 * (copied - begun), answers_.to_host_ms = 1000 * (now() - ended);
        return answers_;
    }

  private:
    // Raises Error for what a call returned; what was got before is given back by whoever catches it.
    void check(const char *call, aclError code) const {
        if (code == ACL_SUCCESS) return;
        const char *const said = acl_.aclGetRecentErrMsg();
        throw Error(cat(path_, ": ", call, " failed with ", code, " (", said ? said : "", "); CANN's log tells more"));
    }
    template <typename Thing> Thing *check_made(const char *call, Thing *made) const {
        if (!made) check(call, -1);
        return made;
    }
    // What gives back a thing, once it is there.
    void later(const char *call, std::function<aclError()> undo) { undo_.emplace_back(call, std::move(undo)); }

    // In the opposite order; a failure ends nothing. What failed first, or nothing.
    std::string give_back() {
        std::string failed;
        for (; !undo_.empty(); undo_.pop_back()) {
            const aclError code = undo_.back().second();
            if (code != ACL_SUCCESS && failed.empty())
                failed = cat(undo_.back().first, " failed with ", code);
        }
        return failed;
    }

    void open(size_t batch, int32_t device) {
        title = "acl";
        check("aclInit", acl_.aclInit(nullptr));
        later("aclFinalize", [this] { return acl_.aclFinalize(); });
        check("aclrtSetDevice", acl_.aclrtSetDevice(device));
        later("aclrtResetDevice", [this, device] { return acl_.aclrtResetDevice(device); });
        check("aclmdlLoadFromFile", acl_.aclmdlLoadFromFile(path_.c_str(), &model_));
        later("aclmdlUnload", [this] { return acl_.aclmdlUnload(model_); });
        aclmdlDesc *const desc = check_made("aclmdlCreateDesc", acl_.aclmdlCreateDesc());
        later("aclmdlDestroyDesc", [this, desc] { return acl_.aclmdlDestroyDesc(desc); });
        check("aclmdlGetDesc", acl_.aclmdlGetDesc(desc, model_));
        read_record();
        describe(desc, batch);
        in_ = dataset();
        for (size_t index = 0; index < acl_.aclmdlGetNumInputs(desc); ++index)
            inputs_.push_back(buffer(in_, acl_.aclmdlGetInputSizeByIndex(desc, index)));
        out_ = dataset();
        output_ = buffer(out_, acl_.aclmdlGetOutputSizeByIndex(desc, 0));
    }

    // The JSON that convert.sh leaves beside a .om.
    void read_record() {
        for (const auto &[place, text] : read_json(path_ + ".json"))
            if (place.find("/info/") == 0) info[place.substr(6)] = text;
            else if (place == "/dtype") told_ = text;
    }

    void describe(aclmdlDesc *desc, size_t batch) {
        const size_t inputs = acl_.aclmdlGetNumInputs(desc), outputs = acl_.aclmdlGetNumOutputs(desc);
        aclmdlIODims of{};
        check("aclmdlGetInputDims", acl_.aclmdlGetInputDims(desc, 0, &of));
        dynamic_ = of.dimCount > 0 && of.dims[0] < 0;
        if (inputs != (dynamic_ ? 2u : 1u) || outputs != 1 || of.dimCount == 0 || of.dimCount > 8)
            throw Error(cat(path_, ": has ", inputs, " inputs and ", outputs, " outputs, expected one of images and one of "
                            "[N, classes]; compile it for that alone"));
        if (dynamic_) {
            check("aclmdlGetInputIndexByName",
                  acl_.aclmdlGetInputIndexByName(desc, ACL_DYNAMIC_TENSOR_NAME, &dynamic_input_));
            aclmdlBatch found{};
            check("aclmdlGetDynamicBatch", acl_.aclmdlGetDynamicBatch(desc, &found));
            sizes.assign(found.batch, found.batch + std::min<size_t>(found.batchCount, 128));
            std::sort(sizes.begin(), sizes.end());
        } else {
            sizes = {size_t(of.dims[0])};
        }
        if (sizes.empty() || sizes[0] == 0) throw Error(path_ + ": says no batch size; compile it again with convert.sh");
        input_bytes_ = acl_.aclmdlGetInputSizeByIndex(desc, 0);
        input = input_at(desc, of);
        input.batch = fitting(sizes, batch);

        const aclDataType type = acl_.aclmdlGetOutputDataType(desc, 0);
        const size_t bytes = acl_.aclmdlGetOutputSizeByIndex(desc, 0);
        answers_.half = type == ACL_FLOAT16;
        answers_.classes = bytes / sizes.back() / (answers_.half ? 2 : 4);
        answers_.values.resize(input.batch * answers_.row_bytes());
        aclmdlIODims answers{};
        check("aclmdlGetOutputDims", acl_.aclmdlGetOutputDims(desc, 0, &answers));
        const bool floats = type == ACL_FLOAT || type == ACL_FLOAT16;
        if (!floats || answers.dimCount != 2 || answers.dims[1] != int64_t(answers_.classes) || answers_.classes < 2)
            throw Error(cat(path_, ": its output is of ", answers.dimCount, " axes, ", bytes, " bytes and type ", type,
                            ", expected float [N, classes]; export it with a Flatten at its end and compile it again"));
    }

    // By the bytes of the largest batch: with AIPP the axes may be those of either side of it (engines/ascend.py).
    Input input_at(aclmdlDesc *desc, const aclmdlIODims &of) const {
        for (const char *kind : {"float32", "uint8", "yuv420sp"})
            for (size_t axis = 1; axis < of.dimCount; ++axis) {
                const Input found{kind, size_t(std::max<int64_t>(of.dims[axis], 0))};
                if (sizes.back() * found.bytes() == input_bytes_ && (told_.empty() || told_ == kind)) return found;
            }
        throw Error(cat(path_, ": its input is of ", input_bytes_, " bytes and type ", acl_.aclmdlGetInputDataType(desc, 0),
                        ", expected square images of ", told_.empty() ? "float32 NCHW, uint8 NHWC or NV12" : told_.c_str(),
                        "; compile it again with convert.sh"));
    }

    aclmdlDataset *dataset() {
        aclmdlDataset *const made = check_made("aclmdlCreateDataset", acl_.aclmdlCreateDataset());
        later("aclmdlDestroyDataset", [this, made] { return acl_.aclmdlDestroyDataset(made); });
        return made;
    }

    // Memory of the device, as the next of a data set.
    void *buffer(aclmdlDataset *set, size_t bytes) {
        void *memory = nullptr;
        check("aclrtMalloc", acl_.aclrtMalloc(&memory, bytes, ACL_MEM_MALLOC_HUGE_FIRST));
        later("aclrtFree", [this, memory] { return acl_.aclrtFree(memory); });
        aclDataBuffer *const made = check_made("aclCreateDataBuffer", acl_.aclCreateDataBuffer(memory, bytes));
        later("aclDestroyDataBuffer", [this, made] { return acl_.aclDestroyDataBuffer(made); });
        check("aclmdlAddDatasetBuffer", acl_.aclmdlAddDatasetBuffer(set, made));
        return memory;
    }

    const std::string path_;
    const Library acl_;
    std::vector<std::pair<const char *, std::function<aclError()>>> undo_;
    std::string told_;  // the kind of tensors, by the record
    uint32_t model_ = 0;
    aclmdlDataset *in_ = nullptr, *out_ = nullptr;
    std::vector<void *> inputs_;
    void *output_ = nullptr;
    size_t input_bytes_ = 0, dynamic_input_ = 0;
    bool dynamic_ = false;
    Answers answers_;
};

}  // namespace

std::unique_ptr<Engine> open_ascend(const std::string &path, size_t batch, size_t device) {
    return std::make_unique<Ascend>(path, batch, device);
}
