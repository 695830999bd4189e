(component
  (import "innkeeper:plugin/context@0.1.0" (instance $context
    (type $level-type (enum "trace" "debug" "info" "warn" "error"))
    (export "level" (type $level (eq $level-type)))
    (export "log" (func (param "level" $level) (param "message" string) (param "fields" (list (tuple string string)))))
    (export "cancelled" (func (result bool)))
    (export "save-checkpoint" (func (param "state" string) (result (result (error string)))))))
  (import "wasi:config/store@0.2.0-rc.1" (instance $config
    (type $error-type (variant (case "upstream" string) (case "io" string)))
    (export "error" (type $error (eq $error-type)))
    (export "get" (func (param "key" string) (result (result (option string) (error $error)))))))
  (import "wasi:random/random@0.2.0" (instance $random
    (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))
  (core module $memory
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $memory (instantiate $memory))
  (core func $log (canon lower (func $context "log") (memory (core memory $memory "memory")) string-encoding=utf16))
  (core func $cancelled (canon lower (func $context "cancelled")))
  (core func $get (canon lower (func $config "get") (memory (core memory $memory "memory")) (realloc (core func $memory "realloc")) string-encoding=latin1+utf16))
  (core func $random (canon lower (func $random "get-random-bytes") (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (core module $main
    (import "host" "log" (func $log (param i32 i32 i32 i32 i32)))
    (import "host" "cancelled" (func $cancelled (result i32)))
    (import "host" "get" (func $get (param i32 i32 i32)))
    (import "host" "random" (func $random (param i64 i32)))
    (import "memory" "memory" (memory 1))
    (func $main
      (call $log (i32.const 2) (i32.const 8) (i32.const 4) (i32.const 0) (i32.const 0))
      (call $get (i32.const 0) (i32.const 3) (i32.const 64))
      (call $random (i64.const 16) (i32.const 80))
      (drop (call $cancelled)))
    (start $main))
  (core instance $host
    (export "log" (func $log))
    (export "cancelled" (func $cancelled))
    (export "get" (func $get))
    (export "random" (func $random)))
  (core instance $main (instantiate $main (with "host" (instance $host)) (with "memory" (instance $memory)))))
