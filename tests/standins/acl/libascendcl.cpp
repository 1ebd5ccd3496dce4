// A stand-in for AscendCL, for the tests only: it runs the stand-in .om (standin_om.py) in a process of session.py, refuses
// calls in a wrong order and wrong sizes, and counts what was not given back. STANDIN_ACL_FAIL=NAME:N makes the N-th call of
// a function fail, STANDIN_ACL_ZEROS=1 answers 0 without a process, STANDIN_ACL_REPORT names the file for the counts.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "acl.h"
#include "json.h"

struct aclmdlDesc {
    bool filled = false;
};
struct aclDataBuffer {
    void *data;
    size_t bytes;
};
struct aclmdlDataset {
    std::vector<const aclDataBuffer *> buffers;
    uint64_t batch = 0;
};

namespace {

constexpr aclError REFUSED = 100000, FAILED = 507899;

std::map<std::string, int> calls;
std::map<const void *, size_t> memory;
std::set<const void *> things;  // descriptions, data sets, buffers
int inits = 0, devices = 0, models = 0, refused = 0;
std::string said;

struct Model {
    Json description;
    std::string path;
    int to = -1, from = -1;
    pid_t process = 0;
} model;

bool fails(const char *name) {
    const int number = ++calls[name];
    const char *const asked = std::getenv("STANDIN_ACL_FAIL");
    return asked && std::string(asked) == std::string(name) + ":" + std::to_string(number);
}

aclError answer(const char *name, bool in_order) {
    if (fails(name)) return said = std::string("E") + name + ": made to fail", FAILED;
    if (!in_order) return ++refused, said = std::string(name) + ": refused", REFUSED;
    return ACL_SUCCESS;
}

// What must be given back is, even where the call that does it is made to fail.
template <typename Undo> aclError undone(const char *name, bool in_order, Undo undo) {
    const aclError code = answer(name, in_order);
    if (in_order) undo();
    return code;
}

std::string entry(const std::string &kind, const char *name) { return model.description["/" + kind + "/0/" + name]; }

// A list of whole numbers, at `path` in the description.
std::vector<int64_t> list(const std::string &path) {
    std::vector<int64_t> found;
    for (std::string place; model.description.count(place = path + "/" + std::to_string(found.size()));)
        found.push_back(std::stoll(model.description[place]));
    return found;
}
std::vector<int64_t> sizes() { return list("/sizes"); }
std::vector<int64_t> sides(const std::string &kind) { return list("/" + kind + "/0/shape"); }

size_t element(const std::string &kind) {
    const std::string dtype = entry(kind, "dtype");
    return dtype == "float32" ? 4 : dtype == "float16" ? 2 : 1;
}

size_t bytes_of(const char *kind, double batch) {
    double bytes = double(element(kind));
    for (const int64_t side : sides(kind)) bytes *= side < 0 ? batch : double(side);
    return size_t(bytes);
}

double largest() { return sizes().empty() ? 0 : double(sizes().back()); }

aclDataType type_of(const char *kind) {
    const std::string dtype = entry(kind, "dtype");
    return dtype == "float32" ? ACL_FLOAT : dtype == "float16" ? ACL_FLOAT16 : ACL_UINT8;
}

void dims_of(const char *kind, aclmdlIODims *out) {
    std::snprintf(out->name, sizeof out->name, "%s", entry(kind, "name").c_str());
    out->dimCount = 0;
    for (const int64_t side : sides(kind)) out->dims[out->dimCount++] = side;
}

bool read_model(const char *path) {
    std::ifstream file(path, std::ios::binary);
    const std::string content(std::istreambuf_iterator<char>(file), {});
    if (content.size() < 300 || content.compare(0, 4, "IMOD") != 0) return false;
    const auto number = [&content](size_t at, int bytes) {
        uint64_t value = 0;
        std::memcpy(&value, &content[at], size_t(bytes));
        return size_t(value);
    };
    const size_t count = number(256, 4), payload = 264 + 24 * count;
    for (size_t place = 0; place < count; ++place) {
        const size_t at = 264 + 24 * place;
        if (number(at, 4) == 8) model.description = parse_json(content.substr(payload + number(at + 8, 8), number(at + 16, 8)));
    }
    model.path = path;
    return !model.description.empty();
}

void start() {
    int to[2], from[2];
    if (pipe(to) != 0 || pipe(from) != 0) std::abort();
    model.process = fork();
    if (model.process == 0) {
        dup2(to[0], 0), dup2(from[1], 1);
        for (const int end : {to[0], to[1], from[0], from[1]}) close(end);
        const char *const python = std::getenv("STANDIN_PYTHON");
        execlp(python, python, std::getenv("STANDIN_ACL_SESSION"), model.path.c_str(), nullptr);
        _exit(127);
    }
    close(to[0]), close(from[1]);
    model.to = to[1], model.from = from[0];
}

bool whole(ssize_t (*move)(int, void *, size_t), int end, void *data, size_t bytes) {
    for (size_t done = 0; done < bytes;) {
        const ssize_t count = move(end, static_cast<char *>(data) + done, bytes - done);
        if (count <= 0) return false;
        done += size_t(count);
    }
    return true;
}

bool compute(uint64_t batch, const aclDataBuffer &in, const aclDataBuffer &out) {
    std::memset(out.data, 0, out.bytes);
    if (std::getenv("STANDIN_ACL_ZEROS")) return true;
    if (!model.process) start();
    const auto send = [](int end, void *data, size_t bytes) { return write(end, data, bytes); };
    const uint64_t sent = bytes_of("inputs", double(batch)), expected = bytes_of("outputs", double(batch));
    uint64_t head[2] = {batch, sent};
    return whole(send, model.to, head, sizeof head) && whole(send, model.to, in.data, sent) &&
           whole(read, model.from, out.data, expected);
}

struct Reporter {
    ~Reporter() {
        const char *const path = std::getenv("STANDIN_ACL_REPORT");
        if (!path) return;
        std::ofstream file(path);
        file << "left " << size_t(inits + devices + models) + memory.size() + things.size() << "\nrefused " << refused << "\n";
        for (const auto &[name, count] : calls) file << name << " " << count << "\n";
    }
} reporter;  // behind what it tells of, so that it goes first

template <typename Thing> Thing *made(const char *name, bool in_order, Thing thing) {
    if (answer(name, in_order) != ACL_SUCCESS) return nullptr;
    Thing *const found = new Thing(thing);
    things.insert(found);
    return found;
}

template <typename Thing> aclError destroyed(const char *name, Thing *thing) {
    return undone(name, things.count(thing) > 0, [thing] {
        things.erase(thing);
        delete thing;
    });
}

}  // namespace

extern "C" {

aclError aclInit(const char *) {
    const aclError code = answer("aclInit", inits == 0);
    return code == ACL_SUCCESS ? ++inits, code : code;
}
aclError aclFinalize() {
    return undone("aclFinalize", inits == 1 && devices == 0, [] { --inits; });
}
const char *aclGetRecentErrMsg() { return said.c_str(); }
aclError aclrtSetDevice(int32_t device) {
    const aclError code = answer("aclrtSetDevice", inits == 1 && device != 63);
    return code == ACL_SUCCESS ? ++devices, code : code;
}
aclError aclrtResetDevice(int32_t) {
    return undone("aclrtResetDevice", devices == 1 && models == 0 && memory.empty(), [] { --devices; });
}
aclError aclrtMalloc(void **pointer, size_t bytes, aclrtMemMallocPolicy) {
    const aclError code = answer("aclrtMalloc", devices == 1 && bytes > 0);
    if (code == ACL_SUCCESS) memory[*pointer = std::malloc(bytes)] = bytes;
    return code;
}
aclError aclrtFree(void *pointer) {
    return undone("aclrtFree", memory.count(pointer) > 0, [pointer] {
        memory.erase(pointer);
        std::free(pointer);
    });
}
aclError aclrtMemcpy(void *to, size_t room, const void *from, size_t bytes, aclrtMemcpyKind kind) {
    const void *const device = kind == ACL_MEMCPY_HOST_TO_DEVICE ? to : from;
    const bool fits = memory.count(device) && bytes <= memory[device] && bytes <= room;
    const aclError code = answer("aclrtMemcpy", fits);
    if (code == ACL_SUCCESS) std::memcpy(to, from, bytes);
    return code;
}
aclError aclmdlLoadFromFile(const char *path, uint32_t *id) {
    const aclError code = answer("aclmdlLoadFromFile", devices == 1 && models == 0 && read_model(path));
    if (code == ACL_SUCCESS) ++models, *id = 7;
    return code;
}
aclError aclmdlUnload(uint32_t id) {
    return undone("aclmdlUnload", id == 7 && models == 1, [] {
        --models;
        if (!model.process) return;
        close(model.to), close(model.from);
        waitpid(model.process, nullptr, 0);
    });
}
aclmdlDesc *aclmdlCreateDesc() { return made("aclmdlCreateDesc", true, aclmdlDesc{}); }
aclError aclmdlDestroyDesc(aclmdlDesc *desc) { return destroyed("aclmdlDestroyDesc", desc); }
aclError aclmdlGetDesc(aclmdlDesc *desc, uint32_t id) {
    const aclError code = answer("aclmdlGetDesc", things.count(desc) && id == 7 && models == 1);
    if (code == ACL_SUCCESS) desc->filled = true;
    return code;
}
size_t aclmdlGetNumInputs(aclmdlDesc *desc) { return !desc->filled ? 0 : sizes().empty() ? 1 : 2; }
size_t aclmdlGetNumOutputs(aclmdlDesc *desc) { return desc->filled; }
size_t aclmdlGetInputSizeByIndex(aclmdlDesc *, size_t index) { return index ? 8 : bytes_of("inputs", largest()); }
size_t aclmdlGetOutputSizeByIndex(aclmdlDesc *, size_t) { return bytes_of("outputs", largest()); }
aclError aclmdlGetInputDims(const aclmdlDesc *desc, size_t, aclmdlIODims *out) {
    const aclError code = answer("aclmdlGetInputDims", desc->filled);
    if (code == ACL_SUCCESS) dims_of("inputs", out);
    return code;
}
aclError aclmdlGetOutputDims(const aclmdlDesc *desc, size_t, aclmdlIODims *out) {
    const aclError code = answer("aclmdlGetOutputDims", desc->filled);
    if (code == ACL_SUCCESS) dims_of("outputs", out);
    return code;
}
aclDataType aclmdlGetInputDataType(const aclmdlDesc *, size_t) { return type_of("inputs"); }
aclDataType aclmdlGetOutputDataType(const aclmdlDesc *, size_t) { return type_of("outputs"); }
aclError aclmdlGetInputIndexByName(const aclmdlDesc *desc, const char *name, size_t *index) {
    const bool known = desc->filled && !sizes().empty() && std::strcmp(name, ACL_DYNAMIC_TENSOR_NAME) == 0;
    const aclError code = answer("aclmdlGetInputIndexByName", known);
    if (code == ACL_SUCCESS) *index = 1;
    return code;
}
aclError aclmdlGetDynamicBatch(const aclmdlDesc *desc, aclmdlBatch *out) {
    const aclError code = answer("aclmdlGetDynamicBatch", desc->filled);
    if (code != ACL_SUCCESS) return code;
    out->batchCount = 0;
    for (const int64_t size : sizes()) out->batch[out->batchCount++] = uint64_t(size);
    return code;
}
aclError aclmdlSetDynamicBatchSize(uint32_t id, aclmdlDataset *in, size_t index, uint64_t batch) {
    bool known = false;
    for (const int64_t size : sizes()) known = known || uint64_t(size) == batch;
    const aclError code = answer("aclmdlSetDynamicBatchSize", id == 7 && index == 1 && things.count(in) && known);
    if (code == ACL_SUCCESS) in->batch = batch;
    return code;
}
aclmdlDataset *aclmdlCreateDataset() { return made("aclmdlCreateDataset", true, aclmdlDataset{}); }
aclError aclmdlDestroyDataset(const aclmdlDataset *set) { return destroyed("aclmdlDestroyDataset", set); }
aclDataBuffer *aclCreateDataBuffer(void *data, size_t bytes) {
    return made("aclCreateDataBuffer", memory.count(data) && bytes <= memory[data], aclDataBuffer{data, bytes});
}
aclError aclDestroyDataBuffer(const aclDataBuffer *buffer) { return destroyed("aclDestroyDataBuffer", buffer); }
aclError aclmdlAddDatasetBuffer(aclmdlDataset *set, aclDataBuffer *buffer) {
    const aclError code = answer("aclmdlAddDatasetBuffer", things.count(set) && things.count(buffer));
    if (code == ACL_SUCCESS) set->buffers.push_back(buffer);
    return code;
}
aclError aclmdlExecute(uint32_t id, const aclmdlDataset *in, aclmdlDataset *out) {
    const bool dynamic = !sizes().empty();
    const bool fits = id == 7 && in->buffers.size() == (dynamic ? 2u : 1u) && out->buffers.size() == 1 &&
                      in->buffers[0]->bytes == bytes_of("inputs", largest()) &&
                      out->buffers[0]->bytes == bytes_of("outputs", largest()) && (!dynamic || in->batch);
    const aclError code = answer("aclmdlExecute", fits);
    if (code != ACL_SUCCESS) return code;
    const uint64_t batch = dynamic ? in->batch : 0;
    return compute(batch, *in->buffers[0], *out->buffers[0]) ? code : (said = "the session ended", FAILED);
}
}
