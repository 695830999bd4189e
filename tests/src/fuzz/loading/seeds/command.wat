(component
  (import "wasi:cli/environment@0.2.0" (instance $environment
    (export "get-arguments" (func (result (list string))))))
  (core module $m
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 64))
    (func (export "run") (result i32) (i32.const 0)))
  (core instance $i (instantiate $m))
  (core func $arguments (canon lower (func $environment "get-arguments") (memory (core memory $i "memory")) (realloc (core func $i "realloc"))))
  (func $run (result (result)) (canon lift (core func $i "run")))
  (component $shim
    (import "run-func" (func $run (result (result))))
    (export "run" (func $run)))
  (instance $run (instantiate $shim (with "run-func" (func $run))))
  (export "wasi:cli/run@0.2.0" (instance $run)))
