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
        if (!handle) {
            const std::string reason = dlerror();
            const size_t end = reason.find(": cannot open shared object file");
            if (end == std::string::npos) throw Error("libascendcl.so cannot be loaded: " + reason, RUNTIME);
            throw Error(reason.substr(0, end) +
                            " is not found: CANN's set_env.sh has not been sourced in this shell, or CANN or the driver is "
                            "not whole; run: source <folder of CANN>/set_env.sh",
                        RUNTIME);
        }
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
    Ascend(const std::string &path, const Opening &asked) : path_(path) {
        try {
            open(asked);
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

    Answers run(size_t, const void *data, size_t images, size_t times) override {
        Answers answers;
        const size_t bytes = images * input.image_bytes();
        const double copied = now();
        check("aclrtMemcpy", acl_.aclrtMemcpy(inputs_[0], input_bytes_, data, bytes, ACL_MEMCPY_HOST_TO_DEVICE));
        answers.to_device_ms = 1000 * (now() - copied);
        if (dynamic_)
            check("aclmdlSetDynamicBatchSize", acl_.aclmdlSetDynamicBatchSize(model_, in_, dynamic_input_, images));
        for (; times > 0; --times) {
            check_interrupted();
            const double begun = now();
            check("aclmdlExecute", acl_.aclmdlExecute(model_, in_, out_));
            answers.runs.push_back({begun, now()});
        }
        answers.classes = classes_;
        answers.half = half_;
        answers.values.resize(images * answers.row_bytes());
        const double back = now();
        check("aclrtMemcpy", acl_.aclrtMemcpy(&answers.values[0], answers.values.size(), output_, answers.values.size(),
                                              ACL_MEMCPY_DEVICE_TO_HOST));
        answers.to_host_ms = 1000 * (now() - back);
        return answers;
    }

  private:
    // Raises Error for what a call returned; what was got before is given back by whoever catches it.
    void check(const char *call, aclError code) const {
        if (code == ACL_SUCCESS) return;
        const char *const said = acl_.aclGetRecentErrMsg();
        throw Error(path_ + ": " + call + " failed with " + std::to_string(code) + (said && *said ? " (" : "") +
                    (said ? said : "") + (said && *said ? ")" : "") + "; CANN's log tells more");
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
                failed = std::string(undo_.back().first) + " failed with " + std::to_string(code);
        }
        return failed;
    }

    void open(const Opening &asked) {
        title = "acl";
        check("aclInit", acl_.aclInit(nullptr));
        later("aclFinalize", [this] { return acl_.aclFinalize(); });
        const auto device = int32_t(asked.device);
        check("aclrtSetDevice", acl_.aclrtSetDevice(device));
        later("aclrtResetDevice", [this, device] { return acl_.aclrtResetDevice(device); });
        check("aclmdlLoadFromFile", acl_.aclmdlLoadFromFile(path_.c_str(), &model_));
        later("aclmdlUnload", [this] { return acl_.aclmdlUnload(model_); });
        aclmdlDesc *const desc = check_made("aclmdlCreateDesc", acl_.aclmdlCreateDesc());
        later("aclmdlDestroyDesc", [this, desc] { return acl_.aclmdlDestroyDesc(desc); });
        check("aclmdlGetDesc", acl_.aclmdlGetDesc(desc, model_));
        read_record();
        describe(desc, asked.batch);
        in_ = dataset();
        for (size_t index = 0; index < acl_.aclmdlGetNumInputs(desc); ++index)
            inputs_.push_back(buffer(in_, acl_.aclmdlGetInputSizeByIndex(desc, index)));
        out_ = dataset();
        output_ = buffer(out_, acl_.aclmdlGetOutputSizeByIndex(desc, 0));
    }

    // The JSON that convert.sh leaves beside a .om.
    void read_record() {
        const Json record = read_json(path_ + ".json", true);
        if (const Json *said = record.get("info"))
            for (const auto &[key, value] : said->members) info[key] = value.str();
        if (const Json *dtype = record.get("dtype")) told_ = dtype->str();
    }

    void describe(aclmdlDesc *desc, size_t batch) {
        const size_t inputs = acl_.aclmdlGetNumInputs(desc), outputs = acl_.aclmdlGetNumOutputs(desc);
        aclmdlIODims of{};
        check("aclmdlGetInputDims", acl_.aclmdlGetInputDims(desc, 0, &of));
        dynamic_ = of.dimCount > 0 && of.dims[0] < 0;
        if (inputs != (dynamic_ ? 2u : 1u) || outputs != 1 || of.dimCount == 0 || of.dimCount > 8)
            throw Error(path_ + ": has " + std::to_string(inputs) + " inputs and " + std::to_string(outputs) +
                        " outputs, expected one of images and one of [N, classes]; compile it for that alone");
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
        input.batch = fitting(batch);

        const aclDataType type = acl_.aclmdlGetOutputDataType(desc, 0);
        half_ = type == ACL_FLOAT16;
        const size_t bytes = acl_.aclmdlGetOutputSizeByIndex(desc, 0), of_row = bytes / sizes.back();
        classes_ = of_row / (half_ ? 2 : 4);
        aclmdlIODims answers{};
        check("aclmdlGetOutputDims", acl_.aclmdlGetOutputDims(desc, 0, &answers));
        if ((type != ACL_FLOAT && !half_) || answers.dimCount != 2 || answers.dims[1] != int64_t(classes_) || classes_ < 2)
            throw Error(path_ + ": its output is of " + std::to_string(answers.dimCount) + " axes, " +
                        std::to_string(bytes) + " bytes and type " + std::to_string(type) +
                        ", expected float [N, classes]; export it with a Flatten at its end and compile it again");
    }

    // By the bytes of the largest batch: with AIPP the axes may be those of either side of it (engines/ascend.py).
    Input input_at(aclmdlDesc *desc, const aclmdlIODims &of) const {
        std::vector<int64_t> sides(of.dims + 1, of.dims + of.dimCount);
        std::sort(sides.begin(), sides.end());
        for (const char *kind : {"float32", "uint8", "yuv420sp"})
            for (const int64_t side : sides) {
                Input found;
                found.name = of.name, found.kind = kind, found.side = size_t(std::max<int64_t>(side, 0));
                found.element = found.kind == "float32" ? "float32" : "uint8";
                std::vector<int64_t> image{3, side, side}, rows{1, side, side * 3 / 2};
                std::sort(image.begin(), image.end()), std::sort(rows.begin(), rows.end());
                const bool named = sides == image || (found.kind == "yuv420sp" && side % 2 == 0 && sides == rows);
                if (named && sizes.back() * found.image_bytes() == input_bytes_ && (told_.empty() || told_ == kind))
                    return found;
            }
        const std::string expected = told_.empty() ? "expected square images: float32 NCHW, uint8 NHWC or NV12"
                                                   : "its record says " + told_;
        throw Error(path_ + ": its input is of " + std::to_string(input_bytes_) + " bytes and type " +
                    std::to_string(acl_.aclmdlGetInputDataType(desc, 0)) + ", " + expected +
                    "; compile it again with convert.sh");
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
    size_t input_bytes_ = 0, classes_ = 0, dynamic_input_ = 0;
    bool dynamic_ = false, half_ = false;
};

}  // namespace

std::unique_ptr<Engine> open_ascend(const std::string &path, const Opening &asked) {
    return std::make_unique<Ascend>(path, asked);
}
