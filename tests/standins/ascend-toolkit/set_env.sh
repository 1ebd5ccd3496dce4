# To be sourced, like the real one. The real one reads LD_LIBRARY_PATH and PYTHONPATH whether they are set or not, so a
# caller under `set -u` fails here as it would there.
_bin=$(cd "$(dirname "${BASH_SOURCE[0]}")/../bin" && pwd)
export ASCEND_TOOLKIT_HOME=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export ASCEND_HOME_PATH=$ASCEND_TOOLKIT_HOME
export ASCEND_OPP_PATH=$ASCEND_TOOLKIT_HOME/opp
export LD_LIBRARY_PATH=$ASCEND_TOOLKIT_HOME/lib64:$LD_LIBRARY_PATH
export PYTHONPATH=$ASCEND_TOOLKIT_HOME/python/site-packages:$PYTHONPATH
export PATH=$_bin:$PATH
unset _bin
