#include "flow.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <future>

#include "files.h"

std::atomic<bool> interrupted{false};

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

namespace {

// `images` of a flow, from `first` on, by some threads.
Batch loaded(const Flow &flow, const Input &input, size_t first, size_t images, size_t threads) {
    Batch batch{first, images, std::string(input.batch * input.bytes(), '\0'), std::vector<char>(images), {}};
    std::atomic<size_t> next{0};
    const auto load = [&] {
        for (size_t place; (place = next++) < images;)
            batch.made[place] = flow.load(first + place, &batch.data[place * input.bytes()]);
    };
    std::vector<std::future<void>> others;
    while (others.size() + 1 < std::min(threads, images)) others.push_back(std::async(std::launch::async, load));
    load();
    for (std::future<void> &other : others) other.get();
    for (size_t place = images; place < input.batch; ++place)
        std::memcpy(&batch.data[place * input.bytes()], batch.data.data(), input.bytes());
    return batch;
}

}  // namespace

std::vector<Span> Flow::through(Engine &engine) const {
    const Input &input = engine.input;
    const size_t side_by_side = engine.instances, batches = (images + input.batch - 1) / input.batch;
    std::vector<Span> spans;
    std::deque<std::future<Batch>> loading;
    std::deque<Batch> running;
    size_t asked = 0, started = 0;  // batches; runs
    try {
        for (size_t run = 0; run < batches * times; ++run) {
            for (; started < std::min(batches * times, run + side_by_side); ++started) {
                if (interrupted) throw Error("interrupted; run the same command again", INTERRUPTED);
                if (started % times == 0) {
                    for (; asked < std::min(batches, started / times + side_by_side + 1); ++asked) {
                        const size_t first = asked * input.batch, count = std::min(input.batch, images - first);
                        const size_t threads = std::max<size_t>(loaders / side_by_side, 1);
                        const auto load_it = [=, &input] { return loaded(*this, input, first, count, threads); };
                        loading.push_back(std::async(std::launch::async, load_it));
                    }
                    running.push_back(loading.front().get());
                    loading.pop_front();
                }
                engine.start(started % side_by_side, running.back().data.data());
            }
            Batch &batch = running.front();
            batch.answers = engine.finish(run % side_by_side);
            spans.push_back(batch.answers.span);
            if (run % times + 1 < times) continue;
            take(batch);
            running.pop_front();
        }
    } catch (...) {
        engine.stop();  // reading what `running` holds
        throw;
    }
    return spans;
}
