// Items in order through a pool that loads them, instances that run them, and a caller that takes what they gave.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>

extern std::atomic<bool> interrupted;  // by Ctrl-C
// Raises Error where it was; between two runs of a model, and by whoever waits.
void check_interrupted();

double now();  // seconds of a clock that is never set

struct Flow {
    size_t items = 0, loaders = 1, instances = 1;
    std::function<size_t(size_t item)> parts = [](size_t) { return 1; };  // of an item, loaded by several threads at once
    std::function<void(size_t item, size_t part)> load = [](size_t, size_t) {};
    std::function<void(size_t instance, size_t item)> run;  // one instance alone runs in the caller's thread
    std::function<void(size_t item)> take;                  // in the caller's thread, in order

    // How many items are held at once: what belongs to an item may lie in place `item % ahead()`.
    size_t ahead() const { return 2 * instances + 1; }
    // Raises what a function raised, at its item's turn.
    void go() const;
};
