(component
  (import "innkeeper:plugin/db@0.1.0" (instance $db
    (export "transaction" (type $transaction (sub resource)))
    (export "cursor" (type $cursor (sub resource)))))
  (alias export $db "transaction" (type $transaction))
  (type $own (resource (rep i32)))
  (core func $new (canon resource.new $own))
  (core func $drop (canon resource.drop $own))
  (core func $rep (canon resource.rep $own))
  (core func $drop-transaction (canon resource.drop $transaction))
  (core module $m
    (import "r" "new" (func $new (param i32) (result i32)))
    (import "r" "drop" (func $drop (param i32)))
    (import "r" "rep" (func $rep (param i32) (result i32)))
    (import "r" "drop-transaction" (func $drop-transaction (param i32)))
    (func $main
      (local $handle i32)
      (local.set $handle (call $new (i32.const 7)))
      (drop (call $rep (local.get $handle)))
      (call $drop (local.get $handle)))
    (start $main))
  (core instance $r
    (export "new" (func $new))
    (export "drop" (func $drop))
    (export "rep" (func $rep))
    (export "drop-transaction" (func $drop-transaction)))
  (core instance $i (instantiate $m (with "r" (instance $r))))
  (component $c
    (type $resource (resource (rep i32)))
    (export "resource" (type $resource)))
  (instance $one (instantiate $c))
  (instance $two (instantiate $c))
  (type $tree (variant (case "leaf") (case "node" (list (tuple u8 (option (own $own)))))))
  (export "one" (instance $one)))
